use std::collections::{BTreeMap, HashMap, VecDeque};

use chrono::{DateTime, Utc};

use crate::envoy::GroupLoad;

/// Groups that are remembered, of all models; of more there is nothing to be seen.
const MOST_GROUPS: usize = 10_000;
/// Seconds that are kept of a group: the window, and what is reported late.
const KEPT_SECONDS: i64 = 60;
/// Time over which rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;
/// A longer interval counts as this long, seconds.
const LONGEST_INTERVAL_SECONDS: f64 = 3600.0;

/// Requests at one group of a model's backends, as Envoys report them. It is shown; nothing is decided on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupTraffic {
    /// Requests/s that were sent there, over ten seconds.
    pub requests_per_second: f64,
    /// Requests/s that failed there, over ten seconds.
    pub errors_per_second: f64,
    /// Requests that run there.
    pub in_progress: f64,
}

/// Model and group.
type Key = (String, String);

/// What is reported of groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    seen: BTreeMap<Key, Seen>,
    /// Requests in progress, by reporter.
    running: HashMap<String, Vec<(Key, f64)>>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// By second: requests and errors. Oldest first.
    seconds: VecDeque<(i64, f64, f64)>,
    in_progress: f64,
}

impl Groups {
    /// Takes what a reporter tells, instead of what it had in progress before.
    pub(super) fn heard<'a>(
        &mut self,
        node: &str,
        at: DateTime<Utc>,
        loads: impl Iterator<Item = &'a GroupLoad>,
    ) {
        self.forget(node);
        let mut running = Vec::new();
        for load in loads {
            let key = (load.model.clone(), load.group.clone());
            if self.seen.len() >= MOST_GROUPS && !self.seen.contains_key(&key) {
                self.seen.retain(|_, seen| !seen.is_over(at.timestamp()));
                if self.seen.len() >= MOST_GROUPS {
                    continue;
                }
            }
            let seen = self.seen.entry(key.clone()).or_default();
            seen.fill(at, load);
            if load.in_progress > 0.0 {
                seen.in_progress += load.in_progress;
                running.push((key, load.in_progress));
            }
        }
        if !running.is_empty() {
            self.running.insert(node.to_owned(), running);
        }
    }

    /// Forgets what a reporter has in progress.
    pub(super) fn forget(&mut self, node: &str) {
        for (key, count) in self.running.remove(node).into_iter().flatten() {
            if let Some(seen) = self.seen.get_mut(&key) {
                seen.in_progress = (seen.in_progress - count).max(0.0);
            }
        }
    }

    /// What was reported of a group, up to a time until which everyone has told everything.
    pub(super) fn traffic(&self, model: &str, group: &str, until: DateTime<Utc>) -> GroupTraffic {
        let Some(seen) = self.seen.get(&(model.to_owned(), group.to_owned())) else {
            return GroupTraffic::default();
        };
        let end = until.timestamp();
        let recent = seen.seconds.iter().filter(|entry| (end - WINDOW_SECONDS..end).contains(&entry.0));
        let (requests, errors) = recent.fold((0.0, 0.0), |sum, entry| (sum.0 + entry.1, sum.1 + entry.2));
        GroupTraffic {
            requests_per_second: requests / WINDOW_SECONDS as f64,
            errors_per_second: errors / WINDOW_SECONDS as f64,
            in_progress: seen.in_progress,
        }
    }
}

impl Seen {
    /// Spreads the requests of an interval evenly over its seconds.
    fn fill(&mut self, at: DateTime<Utc>, load: &GroupLoad) {
        let end = at.timestamp() as f64 + f64::from(at.timestamp_subsec_micros()) / 1e6;
        let length = load.interval_seconds.clamp(0.001, LONGEST_INTERVAL_SECONDS);
        let (begin, last) = (end - length, at.timestamp());
        let oldest = last - KEPT_SECONDS;
        self.seconds.retain(|entry| (oldest..=last).contains(&entry.0));
        for second in (begin.floor() as i64).max(oldest)..=last {
            let part = ((second + 1) as f64).min(end) - (second as f64).max(begin);
            let (requests, errors) = (load.requests * part / length, load.errors * part / length);
            match self.seconds.iter_mut().rev().find(|entry| entry.0 == second) {
                Some(entry) => {
                    entry.1 += requests;
                    entry.2 += errors;
                }
                None => self.seconds.push_back((second, requests, errors)),
            }
        }
    }

    /// Whether nothing of it is to be seen any more.
    fn is_over(&self, now: i64) -> bool {
        let newest = self.seconds.iter().map(|entry| entry.0).max();
        self.in_progress <= 0.0 && newest.is_none_or(|newest| newest < now - KEPT_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: f64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_000_000_000_000 + (second * 1e6) as i64).unwrap()
    }

    fn load(group: &str, requests: f64, errors: f64, in_progress: f64) -> GroupLoad {
        let (model, group) = ("m".to_owned(), group.to_owned());
        GroupLoad { model, group, requests, errors, in_progress, interval_seconds: 2.0 }
    }

    #[test]
    fn each_group_has_what_all_envoys_sent_there() {
        let mut groups = Groups::default();
        for second in (0..=20).step_by(2).map(f64::from) {
            groups.heard("a", at(second), [load("fast", 10.0, 1.0, 3.0), load("slow", 2.0, 0.0, 1.0)].iter());
            groups.heard("b", at(second + 0.5), [load("fast", 6.0, 0.0, 2.0)].iter());
        }
        let fast = groups.traffic("m", "fast", at(20.0));
        assert!((fast.requests_per_second - 8.0).abs() < 1e-6, "{fast:?}");
        assert!((fast.errors_per_second - 0.5).abs() < 1e-6, "{fast:?}");
        assert_eq!(fast.in_progress, 5.0);
        assert_eq!(groups.traffic("m", "slow", at(20.0)).in_progress, 1.0);
        assert_eq!(groups.traffic("other", "fast", at(20.0)), GroupTraffic::default());
        groups.forget("a");
        assert_eq!(groups.traffic("m", "fast", at(20.0)).in_progress, 2.0);
    }

    #[test]
    fn their_number_is_bounded_and_those_of_long_ago_make_room() {
        let mut groups = Groups::default();
        let many: Vec<_> =
            (0..2 * MOST_GROUPS).map(|number| load(&number.to_string(), 1.0, 0.0, 0.0)).collect();
        groups.heard("a", at(0.0), many.iter());
        assert_eq!(groups.seen.len(), MOST_GROUPS);
        groups.heard("a", at(100.0), [load("new", 20.0, 0.0, 0.0)].iter());
        assert_eq!(groups.seen.len(), 1);
        assert!(groups.traffic("m", "new", at(101.0)).requests_per_second > 1.9);
    }
}
