use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::endpoint::v3::UpstreamLocalityStats;
use serde::{Deserialize, Serialize};

/// Groups that are read of one report; a fleet has a few for each of its models.
const MOST_GROUPS: usize = 10_000;

/// Requests for one group of a model's backends through one Envoy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupLoad {
    /// The model.
    pub model: String,
    /// The group: the `sub_zone` of its locality.
    pub group: String,
    /// Requests that were sent there since the last report.
    pub requests: f64,
    /// Requests that failed there since then: 5xx, resets, and connections that were not made.
    pub errors: f64,
    /// Requests that run at the time of the report.
    pub in_progress: f64,
    /// The time over which they were counted, seconds.
    pub interval_seconds: f64,
}

/// Sums up localities by model and group.
#[derive(Debug, Default)]
pub(super) struct GroupSums {
    sums: BTreeMap<(String, String), GroupLoad>,
    left_out: u64,
}

impl GroupSums {
    pub(super) fn add(&mut self, model: &str, interval_seconds: f64, stats: &UpstreamLocalityStats) {
        // A locality without a name of its own is none of Clairvoy's groups.
        let Some(group) = stats.locality.as_ref().map(|at| &at.sub_zone).filter(|name| !name.is_empty())
        else {
            return;
        };
        let key = (model.to_owned(), group.clone());
        if self.sums.len() >= MOST_GROUPS && !self.sums.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let sum = self.sums.entry(key).or_insert_with(|| GroupLoad {
            model: model.to_owned(),
            group: group.clone(),
            requests: 0.0,
            errors: 0.0,
            in_progress: 0.0,
            interval_seconds: 0.0,
        });
        sum.requests += stats.total_issued_requests as f64;
        sum.errors += stats.total_error_requests as f64;
        sum.in_progress += stats.total_requests_in_progress as f64;
        sum.interval_seconds = sum.interval_seconds.max(interval_seconds);
    }

    /// The groups, and how many localities were left out.
    pub(super) fn finish(self) -> (Vec<GroupLoad>, u64) {
        (self.sums.into_values().collect(), self.left_out)
    }
}
