use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize};

use crate::envoy::{EndpointLoad, NodeLoad, node_of};

use super::groups::{GroupTraffic, Groups};

/// An Envoy that is connected and has never reported is waited for this long, seconds: it has to open the stream and be
/// told the interval. One without load reports in its bootstrap never does.
const PATIENCE_SECONDS: f64 = 15.0;
/// An Envoy that neither reports nor is connected is gone after this time, seconds; one that lives is back by then.
const GONE_AFTER_SECONDS: f64 = 30.0;
/// Reports of the same interval that may be missed, and slack, seconds: then a reporter is silent.
const MISSED_INTERVALS: f64 = 3.0;
const SLACK_SECONDS: f64 = 1.0;
/// No reporter is asked for a longer interval.
const LONGEST_INTERVAL_SECONDS: f64 = 86_400.0;
/// Reporters that are remembered; more are not heard.
const MOST_REPORTERS: usize = 20_000;
/// More requests do not run at one place through one Envoy: then the number is none.
const MOST_IN_PROGRESS: f64 = 1e8;
/// Time over which what is reported of groups is taken, seconds.
const WINDOW_SECONDS: f64 = 10.0;

/// Who reports, and whether those are all that should.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Reports {
    /// By gateway and `node.id` together.
    reporters: BTreeMap<String, Reporter>,
    /// `node.id`s of connected Envoys that belong to a gateway, and since when.
    connected: BTreeMap<String, DateTime<Utc>>,
    /// Requests in progress, summed over reporters.
    in_progress: HashMap<SocketAddr, f64>,
    #[serde(deserialize_with = "an_interval")]
    interval_seconds: f64,
    complete_since: Option<DateTime<Utc>>,
    looked_at: Option<DateTime<Utc>>,
    /// Only shown.
    #[serde(skip)]
    groups: Groups,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reporter {
    last_at: DateTime<Utc>,
    in_progress: Vec<(SocketAddr, f64)>,
}

/// A saved state may come from a file.
fn an_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(f64::deserialize(deserializer)?.clamp(0.0, LONGEST_INTERVAL_SECONDS))
}

impl Reports {
    /// Sets the interval that reporters are asked for, seconds.
    pub fn set_interval(&mut self, seconds: f64) {
        self.interval_seconds = seconds.clamp(0.0, LONGEST_INTERVAL_SECONDS);
    }

    /// Takes who reports and what runs at the endpoints; false when there are too many reporters already.
    pub(super) fn heard(&mut self, load: &NodeLoad) -> bool {
        let is_known = self.reporters.contains_key(&load.node_id);
        if !is_known && self.reporters.len() >= MOST_REPORTERS {
            return false;
        }
        self.forget(&load.node_id);
        let counts = |count: f64| count > 0.0 && count <= MOST_IN_PROGRESS;
        let running = load.endpoints.iter().filter(|endpoint| counts(endpoint.in_progress));
        let running = running.map(|EndpointLoad { address, in_progress, .. }| {
            *self.in_progress.entry(*address).or_default() += in_progress;
            (*address, *in_progress)
        });
        let reporter = Reporter { last_at: load.at, in_progress: running.collect() };
        self.reporters.insert(load.node_id.clone(), reporter);
        let groups = load
            .groups
            .iter()
            .filter(|group| group.requests.max(group.errors).max(group.in_progress) <= MOST_IN_PROGRESS);
        self.groups.heard(&load.node_id, load.at, groups);
        true
    }

    fn forget(&mut self, node_id: &str) {
        self.groups.forget(node_id);
        let Some(reporter) = self.reporters.remove(node_id) else { return };
        for (address, count) in reporter.in_progress {
            if let Some(sum) = self.in_progress.get_mut(&address) {
                *sum -= count;
                if *sum <= 0.0 {
                    self.in_progress.remove(&address);
                }
            }
        }
    }

    /// Looks who is there. Returns the seconds, up to now, in which everyone that is connected reported: none when anyone
    /// is missing.
    pub(super) fn look(&mut self, connected: &BTreeSet<String>, now: DateTime<Utc>) -> Option<f64> {
        self.connected.retain(|node, _| connected.contains(node));
        for node in connected {
            self.connected.entry(node.clone()).or_insert(now);
        }
        // A connected one may be that of another gateway with the same id, which reports by itself.
        let heard: BTreeSet<&str> = self
            .reporters
            .iter()
            .filter(|(_, reporter)| age(reporter.last_at, now) <= self.silent_after())
            .map(|(name, _)| node_of(name))
            .collect();
        let is_gone = |name: &String, reporter: &Reporter| {
            let node = node_of(name);
            age(reporter.last_at, now) > GONE_AFTER_SECONDS.max(self.silent_after())
                && (!connected.contains(node) || heard.contains(node))
        };
        let gone: Vec<String> = self
            .reporters
            .iter()
            .filter(|(node, one)| is_gone(node, one))
            .map(|(node, _)| node.clone())
            .collect();
        gone.iter().for_each(|node| self.forget(node));
        let before = self.looked_at.replace(now);
        if !self.everyone_reports(now) {
            self.complete_since = None;
            return None;
        }
        let since = *self.complete_since.get_or_insert(now);
        let before = before.filter(|before| *before >= since)?;
        Some((now - before).as_seconds_f64()).filter(|seconds| *seconds > 0.0)
    }

    fn everyone_reports(&self, now: DateTime<Utc>) -> bool {
        let fresh = |reporter: &Reporter| age(reporter.last_at, now) <= self.silent_after();
        let joins = |since: &DateTime<Utc>| age(*since, now) <= PATIENCE_SECONDS;
        let nodes: BTreeSet<&str> = self.reporters.keys().map(|name| node_of(name)).collect();
        let awaited =
            |(node, since): (&String, &DateTime<Utc>)| nodes.contains(node.as_str()) || joins(since);
        !self.reporters.is_empty() && self.reporters.values().all(fresh) && self.connected.iter().all(awaited)
    }

    fn silent_after(&self) -> f64 {
        MISSED_INTERVALS * self.interval_seconds + SLACK_SECONDS
    }

    /// The time up to which every reporter has told everything; none while they have not done so for `window_seconds`.
    pub fn known_until(&self, window_seconds: f64) -> Option<DateTime<Utc>> {
        let since = self.complete_since?;
        let until = self.reporters.values().map(|reporter| reporter.last_at).min()?;
        ((until - since).as_seconds_f64() >= window_seconds).then_some(until)
    }

    /// Whether everyone reports.
    pub fn is_complete(&self) -> bool {
        self.complete_since.is_some()
    }

    /// How long after it happened the last of what happened is reported.
    pub fn lag(&self) -> TimeDelta {
        TimeDelta::milliseconds((1000.0 * (self.interval_seconds + SLACK_SECONDS)) as i64)
    }

    /// Envoys that report.
    pub fn reporters(&self) -> usize {
        self.reporters.len()
    }

    /// Requests that run at a backend; none while not everyone reports.
    pub fn in_progress(&self, address: SocketAddr) -> Option<f64> {
        self.is_complete().then(|| self.in_progress.get(&address).copied().unwrap_or(0.0))
    }

    /// Requests at a group of a model's backends; none while not everyone has reported for ten seconds.
    pub fn group(&self, model: &str, group: &str) -> Option<GroupTraffic> {
        Some(self.groups.traffic(model, group, self.known_until(WINDOW_SECONDS)?))
    }
}

fn age(at: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    (now - at).as_seconds_f64()
}
