use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::store;

use super::Span;

const DAY: u64 = 86_400;
/// A hundred years; beyond it dates run out.
const LONGEST_DAYS: u64 = 36_500;

/// How long the database keeps rows, in whole days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetentionPeriods {
    /// Telemetry as it came, a row per backend and scrape (default 7 days).
    pub raw: Span,
    /// Telemetry by the minute, and trained models (default 90 days; no shorter than `raw`).
    pub minutes: Span,
    /// Telemetry by the hour (default 730 days; no shorter than `minutes`).
    pub hours: Span,
    /// Demand history, counted from when it came in (default 730 days).
    pub demand: Span,
    /// Issued forecasts (default 30 days).
    pub forecasts: Span,
    /// Decisions (default 30 days).
    pub decisions: Span,
    /// Events (default 14 days).
    pub events: Span,
}

impl Default for RetentionPeriods {
    fn default() -> Self {
        let days = |days: u32| Span::seconds(u64::from(days) * DAY);
        let usual = store::Retention::default();
        Self {
            raw: days(usual.samples_days),
            minutes: days(usual.minutes_days),
            hours: days(usual.hours_days),
            demand: days(usual.demand_days),
            forecasts: days(usual.forecasts_days),
            decisions: days(usual.decisions_days),
            events: days(usual.events_days),
        }
    }
}

impl RetentionPeriods {
    /// The same in days, as the store takes it.
    #[must_use]
    pub fn days(&self) -> store::Retention {
        let days = |span: Span| u32::try_from(span.0.as_secs() / DAY).unwrap_or(u32::MAX);
        store::Retention {
            samples_days: days(self.raw),
            minutes_days: days(self.minutes),
            hours_days: days(self.hours),
            demand_days: days(self.demand),
            forecasts_days: days(self.forecasts),
            decisions_days: days(self.decisions),
            events_days: days(self.events),
        }
    }

    /// What is wrong with it: fields and messages.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let fields = [
            ("raw", self.raw),
            ("minutes", self.minutes),
            ("hours", self.hours),
            ("demand", self.demand),
            ("forecasts", self.forecasts),
            ("decisions", self.decisions),
            ("events", self.events),
        ];
        for (name, Span(period)) in fields {
            let is_whole = period.subsec_nanos() == 0 && period.as_secs().is_multiple_of(DAY);
            if !is_whole || period > Duration::from_secs(LONGEST_DAYS * DAY) || period.is_zero() {
                faults.push((name, format!("must be whole days, 1day to {LONGEST_DAYS}days")));
            }
        }
        if self.minutes < self.raw {
            faults.push(("minutes", format!("{} is shorter than `raw`, {}", self.minutes, self.raw)));
        }
        if self.hours < self.minutes {
            faults.push(("hours", format!("{} is shorter than `minutes`, {}", self.hours, self.minutes)));
        }
        faults
    }
}
