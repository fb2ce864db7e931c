//! Canary: whether the requests that predictions steer do worse than the others of the same time.
//!
//! Which part a request is in is drawn by chance. So if steering made no difference, the outcomes of a block of seconds would
//! have come about all the same, and only who got which would be a draw without replacement. That is the null hypothesis, and
//! it needs no model of traffic: rates that move, backends that fail for both parts, and requests that fail together are in
//! the outcomes that are drawn from. For each block and each measure (failed; first byte later than promised; first byte later
//! than of half of all)
//!
//! ```text
//! e      = exp(s K) / E[exp(s K)]          K: how many of those the steered part got, E over the draws that were possible; mean 1
//! R     <- (R + w) e                       w: some at the first block, some every few blocks; for each of a few sizes s
//! alarm    when the sum of R is 1 or above
//! ```
//!
//! `R` minus all `w` so far is a martingale, so the chance of an alarm without any harm is at most the sum of all `w`, however
//! often one looks ([`CanaryLaw::first_alarm`] and [`CanaryLaw::alarm_per_hour`]); what began late is found by the `w` that
//! were added late. The expectation is exact (hypergeometric).
//!
//! Only requests count that began after the last change of the steered share. Else what ends soon, such as a refusal, would
//! make up more of the part that grows, and the parts would not be alike.
//!
//! Chance is one side; besides, the harm has to be worth it: over 30, 60 or 120 s it is at least [`CanaryLaw::least_failures`],
//! [`CanaryLaw::least_late`] or [`CanaryLaw::least_first_byte_ratio`], of [`CanaryLaw::least_requests`] in each part.
//!
//! What this cannot see: harm that both parts have in common. They share the backends; what steered requests do to a backend,
//! the others meet there, too, the more the larger the share. And a share of whole proxies is no draw of requests: if those
//! few proxies have other clients than the rest, their outcomes differ without any fault of the predictions.

mod evidence;
mod outcomes;
mod terms;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use evidence::{SIZES, block_evidence};

pub use outcomes::{Outcomes, PartOutcomes};
pub use terms::{Measure, MeasureTerms};

/// Evidence is not counted beyond this.
const MOST_EVIDENCE: f64 = 1e12;

/// What is asked of a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryLaw {
    /// Outcomes are looked at in blocks of this length, seconds.
    pub block_seconds: f64,
    /// In every so many blocks a new search for harm that has just begun is started.
    pub blocks_a_start: u64,
    /// Requests that began earlier than this after a change of the steered share do not count, seconds: until then every Envoy
    /// has heard of it, and clocks differ.
    pub settle_seconds: f64,
    /// Largest chance of stepping back without a difference, for harm that is there from the beginning.
    pub first_alarm: f64,
    /// The same, for each further hour.
    pub alarm_per_hour: f64,
    /// Requests in each part without which nothing is concluded.
    pub least_requests: u64,
    /// Least harm that counts: part of the requests that fails, beyond that of the others.
    pub least_failures: f64,
    /// Likewise: part of the first bytes that come later than promised.
    pub least_late: f64,
    /// Likewise: geometric mean of the time to the first byte, in parts of that of the others.
    pub least_first_byte_ratio: f64,
}

impl Default for CanaryLaw {
    fn default() -> Self {
        Self {
            block_seconds: 5.0,
            blocks_a_start: 3,
            settle_seconds: 5.0,
            first_alarm: 0.002,
            alarm_per_hour: 0.006,
            least_requests: 50,
            least_failures: 0.01,
            least_late: 0.02,
            least_first_byte_ratio: 1.2,
        }
    }
}

/// What is seen of the canary of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryInput {
    /// Percent of the requests, or of those of the chosen proxies, that predictions steer.
    pub steered_percent: u32,
    /// Since when it is this one.
    pub steered_since: DateTime<Utc>,
    /// What came since the last block: its end, and the outcomes.
    pub block: Block,
    /// Outcomes over the last seconds, the shortest time first.
    pub windows: Vec<Window>,
}

/// The outcomes of some seconds that no block before had.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Block {
    /// Its first second.
    pub from: DateTime<Utc>,
    /// The first second that is not in it.
    pub until: DateTime<Utc>,
    /// Outcomes.
    #[serde(flatten)]
    pub parts: PartOutcomes,
}

/// The outcomes of the last seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// How many seconds.
    pub seconds: i64,
    /// Outcomes.
    #[serde(flatten)]
    pub parts: PartOutcomes,
}

/// Seconds of the windows over which harm is measured.
pub const CANARY_WINDOWS: [i64; 3] = [30, 60, 120];

/// What is remembered of a canary.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryState {
    /// Outcomes before this second have been taken.
    pub until: Option<DateTime<Utc>>,
    /// Blocks so far.
    pub blocks: u64,
    /// Evidence of harm by measure, and by size of harm; together 1 is enough for an alarm.
    pub evidence: [[f64; SIZES]; Measure::ALL.len()],
}

impl CanaryLaw {
    /// From which second on requests begin that count.
    pub fn settled(&self, steered_since: DateTime<Utc>) -> DateTime<Utc> {
        later(second(later(steered_since, self.settle_seconds)), 1.0)
    }
}

impl CanaryState {
    /// The seconds of the next block, when it is due at `now`: up to the last one that is over.
    pub fn next_block(
        &self,
        steered_since: DateTime<Utc>,
        law: &CanaryLaw,
        now: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let settled = law.settled(steered_since);
        let (until, longest) = (second(now), CANARY_WINDOWS[CANARY_WINDOWS.len() - 1]);
        // A clock that is set back begins anew.
        let taken = self.until.filter(|taken| *taken <= until);
        let from = taken.unwrap_or(settled).max(settled).max(later(until, -(longest as f64)));
        ((until - from).as_seconds_f64() >= law.block_seconds).then_some((from, until))
    }
}

/// What comes of a look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CanaryDecision {
    /// What to remember.
    pub state: CanaryState,
    /// The measure for which predictions are to steer nothing any more; none: go on.
    pub step_back: Option<Measure>,
    /// Every measure with all that was looked at.
    pub terms: Vec<MeasureTerms>,
    /// In words.
    pub reason: String,
}

/// Looks at a block of outcomes.
pub fn decide_canary(input: &CanaryInput, previous: &CanaryState, law: &CanaryLaw) -> CanaryDecision {
    let mut state = previous.clone();
    let budget = if state.blocks == 0 {
        law.first_alarm
    } else if state.blocks.is_multiple_of(law.blocks_a_start.max(1)) {
        law.alarm_per_hour * law.blocks_a_start.max(1) as f64 * law.block_seconds / 3600.0
    } else {
        0.0
    };
    state.blocks = state.blocks.saturating_add(1);
    state.until = Some(input.block.until);
    let mut terms = Vec::with_capacity(Measure::ALL.len());
    for (measure, evidence) in Measure::ALL.into_iter().zip(&mut state.evidence) {
        let added = budget * measure.part_of_alarms() / SIZES as f64;
        let block = block_evidence(measure, &input.block.parts);
        for (kept, ln_e) in evidence.iter_mut().zip(block) {
            // By logarithms: nothing times more than there are numbers for is none.
            *kept = ((*kept + added).ln() + ln_e).exp().clamp(0.0, MOST_EVIDENCE);
        }
        terms.push(MeasureTerms::of(measure, evidence.iter().sum(), &input.windows, law));
    }
    let worst = terms.iter().filter(|terms| terms.is_harmed(law));
    let worst = worst.max_by(|left, right| left.evidence.total_cmp(&right.evidence));
    let step_back = worst.map(|terms| terms.measure);
    let reason = worst.map_or_else(|| terms::all_is_well(&terms), ToString::to_string);
    CanaryDecision { state, step_back, terms, reason }
}

fn second(at: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(at.timestamp(), 0).unwrap_or(at)
}

/// So many seconds later; the same time where there is none.
fn later(at: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    at.checked_add_signed(TimeDelta::milliseconds((1000.0 * seconds) as i64)).unwrap_or(at)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
