use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CanaryLaw, Outcomes, PartOutcomes, Window};

/// What is compared of the two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Part of the requests that failed.
    Failures,
    /// Part of the first bytes that came later than promised.
    Late,
    /// Time to the first byte, geometric mean.
    FirstByte,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Failures, Self::Late, Self::FirstByte];

    /// Its name, as it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::Late => "late",
            Self::FirstByte => "first_byte",
        }
    }

    /// Its part of the false alarms that are allowed; together 1.
    pub(super) fn part_of_alarms(self) -> f64 {
        match self {
            Self::Failures | Self::Late => 0.4,
            Self::FirstByte => 0.2,
        }
    }

    /// What there is to see of one part, and of how many requests.
    fn of(self, outcomes: &Outcomes) -> Option<(f64, u64)> {
        let part = |marked: u64, all: u64| (all > 0).then(|| (marked as f64 / all as f64, all));
        match self {
            Self::Failures => part(outcomes.failures, outcomes.requests),
            Self::Late => part(outcomes.late, outcomes.first_bytes),
            Self::FirstByte => (outcomes.timed > 0)
                .then(|| ((outcomes.sum_ln / outcomes.timed as f64).exp(), outcomes.timed)),
        }
    }

    /// Least harm that counts: a difference, and of first bytes a ratio.
    fn least(self, law: &CanaryLaw) -> f64 {
        match self {
            Self::Failures => law.least_failures,
            Self::Late => law.least_late,
            Self::FirstByte => law.least_first_byte_ratio,
        }
    }

    fn harm(self, steered: f64, unsteered: f64) -> f64 {
        match self {
            Self::Failures | Self::Late => steered - unsteered,
            Self::FirstByte => steered / unsteered,
        }
    }
}

/// One measure of both parts over one of the last times: that with the most harm among those with enough requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MeasureTerms {
    /// What.
    pub measure: Measure,
    /// Evidence that the steered part does worse; 1 is enough.
    pub evidence: f64,
    /// Over how many seconds the rest is; none: too few requests in a part, and the rest is over the longest time.
    pub window_seconds: Option<i64>,
    /// Of the steered part: a part of its requests, or seconds; none without any.
    pub steered: Option<f64>,
    /// Of the unsteered part.
    pub unsteered: Option<f64>,
    /// How many requests tell it, steered.
    pub steered_requests: u64,
    /// Unsteered.
    pub unsteered_requests: u64,
    /// The difference, and of first bytes the ratio; none while either is unknown.
    pub harm: Option<f64>,
    /// The least one that counts.
    pub least_harm: f64,
}

impl MeasureTerms {
    pub(super) fn of(measure: Measure, evidence: f64, windows: &[Window], law: &CanaryLaw) -> Self {
        let least_harm = measure.least(law);
        let read = |window: &Window| {
            let PartOutcomes { steered, unsteered } = &window.parts;
            let (steered, unsteered) = (measure.of(steered), measure.of(unsteered));
            let count = |part: Option<(f64, u64)>| part.map_or(0, |(_, requests)| requests);
            let harm =
                steered.zip(unsteered).map(|((steered, _), (others, _))| measure.harm(steered, others));
            Self {
                measure,
                evidence,
                window_seconds: None,
                steered: steered.map(|(value, _)| value),
                unsteered: unsteered.map(|(value, _)| value),
                steered_requests: count(steered),
                unsteered_requests: count(unsteered),
                harm: harm.filter(|harm| harm.is_finite()),
                least_harm,
            }
        };
        let enough =
            |terms: &Self| terms.steered_requests.min(terms.unsteered_requests) >= law.least_requests;
        let told = windows.iter().map(|window| Self { window_seconds: Some(window.seconds), ..read(window) });
        let worst = told.filter(enough).max_by(|left, right| {
            left.harm.unwrap_or(f64::NEG_INFINITY).total_cmp(&right.harm.unwrap_or(f64::NEG_INFINITY))
        });
        let nothing = Window { seconds: 0, parts: PartOutcomes::default() };
        worst.unwrap_or_else(|| read(windows.last().unwrap_or(&nothing)))
    }

    /// Whether it is more than chance, and worth it.
    pub(super) fn is_harmed(&self, law: &CanaryLaw) -> bool {
        self.evidence >= 1.0
            && self.window_seconds.is_some()
            && self.harm.is_some_and(|harm| harm >= self.measure.least(law))
    }
}

impl std::fmt::Display for MeasureTerms {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Some(steered), Some(unsteered)) = (self.steered, self.unsteered) else {
            return write!(formatter, "{}: nothing is known of one part", self.measure.name());
        };
        match self.measure {
            Measure::Failures => write!(
                formatter,
                "{:.1} % of the steered requests failed, and {:.1} % of the others",
                100.0 * steered,
                100.0 * unsteered
            )?,
            Measure::Late => write!(
                formatter,
                "{:.1} % of the steered requests waited too long for the first byte, and {:.1} % of the others",
                100.0 * steered,
                100.0 * unsteered
            )?,
            Measure::FirstByte => write!(
                formatter,
                "steered requests waited {steered:.3} s for the first byte, and the others {unsteered:.3} s"
            )?,
        }
        let over = self.window_seconds.map_or_else(String::new, |seconds| format!(" over {seconds} s"));
        write!(formatter, " ({} and {} requests{over})", self.steered_requests, self.unsteered_requests)
    }
}

/// Why nothing is done.
pub(super) fn all_is_well(terms: &[MeasureTerms]) -> String {
    if terms.iter().all(|terms| terms.window_seconds.is_none()) {
        return "too few requests in one part to tell".to_owned();
    }
    "the steered requests do no worse than the others".to_owned()
}
