use std::collections::{BTreeMap, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::{MOST_ZONES, NodeZone, Zone};
use crate::envoy::NodeLoad;

/// A zone whose last Envoy went counts for this long: one that lives is back by then, or goes by capacity shares.
const GONE_AFTER: TimeDelta = TimeDelta::seconds(10);
/// Zones that had shares of their own before a restart count for this long without an Envoy: one that lives connects within
/// the longest wait between two tries of its own, 30 s.
const EXPECTED_FOR: TimeDelta = TimeDelta::seconds(40);
/// What is reported of a zone counts when its Envoys have been there for as long as they may take to begin to report, and the
/// time over which rates are taken.
const KNOWN_AFTER: TimeDelta = TimeDelta::seconds(25);
/// Time over which rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;
/// Seconds that are kept: the window, and what is reported late.
const KEPT_SECONDS: i64 = 60;
/// A longer interval counts as this long, seconds.
const LONGEST_INTERVAL_SECONDS: f64 = 3600.0;
/// More requests in one report are no report.
const MOST_REQUESTS: f64 = 1e8;

/// The zones of the connected Envoys, and the demand in each of them. At most [`MOST_ZONES`] have a place; who has one keeps
/// it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeZones {
    /// Envoys by zone, as they are connected now.
    counted: BTreeMap<Zone, u32>,
    places: BTreeMap<Zone, Place>,
    /// Zones that found no place.
    left_out: usize,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Place {
    envoys: u32,
    /// Since when it has had Envoys without a break.
    since: DateTime<Utc>,
    last_at: DateTime<Utc>,
    /// Until when it counts although no Envoy has come yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expected_until: Option<DateTime<Utc>>,
    /// By model, and by second: requests. Oldest first.
    requests: BTreeMap<String, VecDeque<(i64, f64)>>,
}

impl Place {
    fn new(envoys: u32, now: DateTime<Utc>) -> Self {
        Self { envoys, since: now, last_at: now, expected_until: None, requests: BTreeMap::new() }
    }
}

impl NodeZones {
    /// Says how many Envoys of each zone are connected.
    pub fn count(&mut self, zones: impl IntoIterator<Item = (Zone, u32)>) {
        self.counted = zones.into_iter().filter(|(_, envoys)| *envoys > 0).collect();
    }

    /// Gives places to zones, and takes those of zones that have gone; once a second. Returns how many zones have found
    /// none, when that has just begun.
    pub fn look(&mut self, now: DateTime<Utc>) -> Option<usize> {
        for (zone, place) in &mut self.places {
            place.envoys = self.counted.get(zone).copied().unwrap_or(0);
            // A clock that was set back begins anew.
            place.last_at = if place.envoys > 0 { now } else { place.last_at.min(now) };
            // Where nobody is, nobody reports: that says nothing of what arrives there.
            place.since = if place.envoys > 0 { place.since.min(now) } else { now };
            let expected = place.expected_until.filter(|until| place.envoys == 0 && now < *until);
            place.expected_until = expected.map(|until| until.min(now + EXPECTED_FOR));
        }
        self.places.retain(|_, place| now - place.last_at < GONE_AFTER || place.expected_until.is_some());
        let mut left_out = 0;
        for (zone, envoys) in &self.counted {
            if self.places.contains_key(zone) {
                continue;
            }
            if self.places.len() >= MOST_ZONES {
                left_out += 1;
                continue;
            }
            self.places.insert(zone.clone(), Place::new(*envoys, now));
        }
        let before = std::mem::replace(&mut self.left_out, left_out);
        (before == 0 && left_out > 0).then_some(left_out)
    }

    /// Gives places to zones whose Envoys are about to come back after a restart.
    pub fn expect<'a>(&mut self, zones: impl IntoIterator<Item = &'a Zone>, now: DateTime<Utc>) {
        for zone in zones {
            if self.places.len() < MOST_ZONES && !self.places.contains_key(zone) {
                let place = Place { expected_until: Some(now + EXPECTED_FOR), ..Place::new(0, now) };
                self.places.insert(zone.clone(), place);
            }
        }
    }

    /// Forgets all: nobody asks for zones.
    pub fn clear(&mut self) {
        let counted = std::mem::take(&mut self.counted);
        *self = Self { counted, ..Self::default() };
    }

    /// Takes what an Envoy reports of the models that are asked about.
    pub fn heard(&mut self, load: &NodeLoad, wanted: impl Fn(&str) -> bool) {
        let Some(place) = load.zone.as_ref().and_then(|zone| self.places.get_mut(zone)) else { return };
        for (model, of_model) in load.models.iter().filter(|(model, _)| wanted(model)) {
            if (0.0..=MOST_REQUESTS).contains(&of_model.requests) {
                let seconds = place.requests.entry(model.clone()).or_default();
                fill(seconds, load.at, of_model.requests, of_model.interval_seconds);
            }
        }
    }

    /// The zones and their demand for a model, sorted; `until` is the time up to which all Envoys have told everything, none
    /// where some do not.
    pub fn demand(&self, model: &str, until: Option<DateTime<Utc>>) -> Vec<NodeZone> {
        let of_zone = |(zone, place): (&Zone, &Place)| {
            let rate = |until: DateTime<Utc>| {
                let seconds = place.requests.get(model).into_iter().flatten();
                let end = until.timestamp();
                let recent = seconds.filter(|entry| (end - WINDOW_SECONDS..end).contains(&entry.0));
                recent.map(|entry| entry.1).sum::<f64>() / WINDOW_SECONDS as f64
            };
            NodeZone {
                zone: zone.clone(),
                envoys: place.envoys,
                requests_per_second: until.filter(|until| *until - place.since >= KNOWN_AFTER).map(rate),
            }
        };
        self.places.iter().map(of_zone).collect()
    }
}

/// Spreads the requests of an interval evenly over its seconds.
fn fill(seconds: &mut VecDeque<(i64, f64)>, at: DateTime<Utc>, requests: f64, interval_seconds: f64) {
    let end = at.timestamp() as f64 + f64::from(at.timestamp_subsec_micros()) / 1e6;
    let length = if interval_seconds.is_finite() {
        interval_seconds.clamp(0.001, LONGEST_INTERVAL_SECONDS)
    } else {
        LONGEST_INTERVAL_SECONDS
    };
    let (begin, last) = (end - length, at.timestamp());
    let oldest = last - KEPT_SECONDS;
    seconds.retain(|entry| (oldest..=last).contains(&entry.0));
    for second in (begin.floor() as i64).max(oldest)..=last {
        let part = ((second + 1) as f64).min(end) - (second as f64).max(begin);
        let requests = requests * part.max(0.0) / length;
        match seconds.iter_mut().rev().find(|entry| entry.0 == second) {
            Some(entry) => entry.1 += requests,
            None => seconds.push_back((second, requests)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::envoy::ModelLoad;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn zone(name: &str) -> Zone {
        format!("eu/{name}").parse().unwrap()
    }

    fn report(name: &str, second: i64, requests: f64) -> NodeLoad {
        let load = ModelLoad { requests, dropped: 0.0, interval_seconds: 2.0 };
        NodeLoad {
            node_id: name.to_owned(),
            zone: Some(zone(name)),
            at: at(second),
            models: [("m".to_owned(), load), ("other".to_owned(), load)].into(),
            endpoints: Vec::new(),
            groups: Vec::new(),
        }
    }

    #[test]
    fn the_demand_of_each_zone_is_what_its_envoys_report() {
        let mut zones = NodeZones::default();
        zones.count([(zone("a"), 1), (zone("b"), 2)]);
        assert_eq!(zones.look(at(0)), None);
        for second in (2..=30).step_by(2) {
            zones.heard(&report("a", second, 10.0), |model| model == "m");
            zones.heard(&report("b", second, 3.0), |model| model == "m");
            zones.heard(&report("c", second, 3.0), |model| model == "m");
        }
        let rates = |until: Option<i64>| {
            let all = zones.demand("m", until.map(at));
            all.into_iter().map(|zone| (zone.envoys, zone.requests_per_second)).collect::<Vec<_>>()
        };
        assert_eq!(rates(Some(30)), [(1, Some(5.0)), (2, Some(1.5))]);
        assert_eq!(rates(Some(20)), [(1, None), (2, None)], "too soon to be known");
        assert_eq!(rates(None), [(1, None), (2, None)]);
        assert_eq!(zones.demand("other", Some(at(30)))[0].requests_per_second, Some(0.0), "nobody asked");
    }

    #[test]
    fn a_zone_without_envoys_stays_for_a_moment() {
        let mut zones = NodeZones::default();
        zones.count([(zone("a"), 1)]);
        zones.look(at(0));
        zones.count([]);
        zones.look(at(9));
        assert_eq!(zones.demand("m", None).len(), 1);
        zones.look(at(10));
        assert!(zones.demand("m", None).is_empty());
    }

    #[test]
    fn a_zone_that_is_expected_counts_until_its_envoys_have_come() {
        let mut zones = NodeZones::default();
        zones.expect([&zone("a"), &zone("b")], at(0));
        let held = |zones: &NodeZones| zones.demand("m", None).len();
        zones.look(at(39));
        assert_eq!(held(&zones), 2);
        zones.count([(zone("a"), 1)]);
        zones.look(at(39));
        zones.count([]);
        zones.look(at(40));
        assert_eq!(held(&zones), 1, "one that was there is as any other");
        zones.look(at(49));
        assert_eq!(held(&zones), 0);
    }

    #[test]
    fn what_arrives_in_a_zone_without_envoys_is_unknown_until_they_have_been_back_for_a_while() {
        let mut zones = NodeZones::default();
        let rates = |zones: &NodeZones, until| {
            let all = zones.demand("m", Some(at(until)));
            all.into_iter().map(|zone| zone.requests_per_second).collect::<Vec<_>>()
        };
        zones.expect([&zone("a"), &zone("b")], at(0));
        zones.count([(zone("a"), 1)]);
        for second in 0..39 {
            zones.look(at(second));
            zones.heard(&report("a", second, 5.0), |_| true);
        }
        assert_eq!(rates(&zones, 36), [Some(5.0), None], "one of b is still on the way");
        zones.count([(zone("a"), 1), (zone("b"), 1)]);
        (39..63).for_each(|second| _ = zones.look(at(second)));
        assert_eq!(rates(&zones, 62)[1], None);
        assert_eq!(rates(&zones, 64)[1], Some(0.0));
        // All of them lose the connection for a moment.
        zones.count([(zone("b"), 1)]);
        zones.look(at(65));
        zones.count([(zone("a"), 1), (zone("b"), 1)]);
        zones.look(at(68));
        assert_eq!(rates(&zones, 69), [None, Some(0.0)]);
    }

    #[test]
    fn who_has_a_place_keeps_it_and_others_are_told_of_once() {
        let mut zones = NodeZones::default();
        let many = |from: usize, to: usize| (from..to).map(|number| (zone(&format!("z{number:03}")), 1));
        zones.count(many(1, 1 + MOST_ZONES));
        assert_eq!(zones.look(at(0)), None);
        zones.count(many(0, 3 + MOST_ZONES));
        assert_eq!(zones.look(at(1)), Some(3));
        assert_eq!(zones.look(at(2)), None);
        let held = zones.demand("m", None);
        assert_eq!((held.len(), &held[0].zone), (MOST_ZONES, &zone("z001")));
        zones.count(many(0, 2));
        zones.look(at(12));
        assert_eq!(zones.demand("m", None).len(), 2);
    }
}
