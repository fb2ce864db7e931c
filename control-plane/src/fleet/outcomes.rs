use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Rung};
use crate::decide::PartOutcomes;
use crate::envoy::LogSummary;

use super::Fleet;

/// Seconds that are kept.
const KEPT_SECONDS: i64 = 125;
/// A clock that goes back by no more adds to the newest second.
const CLOCK_JITTER_SECONDS: i64 = 10;

/// How both parts of a canary's requests fared of late, by the second in which it was told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RecentOutcomes {
    seconds: VecDeque<(i64, PartOutcomes)>,
}

impl RecentOutcomes {
    fn observe(&mut self, parts: &PartOutcomes, now: DateTime<Utc>) {
        if !parts.is_possible() {
            return;
        }
        let second = now.timestamp();
        // What a clock says that was set back since is of no time.
        if self.seconds.back().is_some_and(|(last, _)| last - second > CLOCK_JITTER_SECONDS) {
            self.seconds.clear();
        }
        match self.seconds.back_mut() {
            Some((last, sum)) if *last >= second => sum.add(parts),
            _ => self.seconds.push_back((second, parts.clone())),
        }
        while self.seconds.front().is_some_and(|(oldest, _)| *oldest <= second - KEPT_SECONDS) {
            self.seconds.pop_front();
        }
    }

    fn between(&self, from: DateTime<Utc>, until: DateTime<Utc>) -> PartOutcomes {
        let mut sum = PartOutcomes::default();
        let wanted = from.timestamp()..until.timestamp();
        let told = self.seconds.iter().filter(|(second, _)| wanted.contains(second));
        told.for_each(|(_, parts)| sum.add(parts));
        sum
    }
}

impl Fleet {
    /// Keeps the outcomes of the canaries of a configuration, and of no other model.
    pub(super) fn keep_outcomes(&mut self, config: &Config) {
        let canaries = config.models.iter().filter(|model| model.rung == Rung::Canary);
        let mut kept = BTreeMap::new();
        for model in canaries {
            let before = self.outcomes.remove(&model.name).unwrap_or_default();
            kept.insert(model.name.clone(), before);
        }
        self.outcomes = kept;
    }

    /// Takes what was told of both parts of the canaries' requests.
    pub(super) fn observe_outcomes(&mut self, summary: &LogSummary, now: DateTime<Utc>) {
        for (model, parts) in &summary.parts {
            if let Some(recent) = self.outcomes.get_mut(model) {
                recent.observe(parts, now);
            }
        }
    }

    /// How both parts of a canary's requests fared, by what was told in the seconds `from..until` of the last two minutes.
    pub fn outcomes(&self, model: &str, from: DateTime<Utc>, until: DateTime<Utc>) -> PartOutcomes {
        self.outcomes.get(model).map(|recent| recent.between(from, until)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::decide::Outcomes;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 700_000_000).unwrap()
    }

    fn requests(requests: u64) -> PartOutcomes {
        PartOutcomes { steered: Outcomes { requests, ..Outcomes::default() }, ..PartOutcomes::default() }
    }

    #[test]
    fn what_was_told_in_some_seconds_is_summed_up_and_forgotten_after_two_minutes() {
        let mut recent = RecentOutcomes::default();
        for second in 0..1000 {
            recent.observe(&requests(1), at(second));
        }
        recent.observe(&requests(1), at(990));
        assert_eq!(recent.between(at(995), at(1000)).steered.requests, 6);
        assert_eq!(recent.between(at(880), at(1000)).steered.requests, 121);
        assert_eq!(recent.between(at(0), at(870)).steered.requests, 0);
        recent.observe(&requests(7), at(500));
        assert_eq!(recent.between(at(0), at(2000)).steered.requests, 7, "the clock was set back");
        let impossible = PartOutcomes {
            steered: Outcomes { requests: 1, failures: 2, ..Outcomes::default() },
            ..PartOutcomes::default()
        };
        recent.observe(&impossible, at(1000));
        assert_eq!(recent.between(at(1000), at(1001)), PartOutcomes::default());
    }
}
