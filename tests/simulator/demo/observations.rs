//! What is seen of the fleet from second to second: a fold over the states that Clairvoy shows.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
};

use super::api::{Decision, State};

/// Decisions and events remembered to tell each only once; a state shows twenty.
const REMEMBERED: usize = 128;

/// A change of a share that is worth a line.
const LARGE_SHIFT: f64 = 0.05;

/// Seconds between two lines about the shares of one model.
const SHIFT_PAUSE_SECONDS: f64 = 8.0;

/// Seconds before the slowdown over which the share before it is averaged.
const BEFORE_SECONDS: f64 = 5.0;

/// Everything seen so far. Times are seconds from the first request.
#[derive(Debug, Default)]
pub(super) struct Observations {
    proxies_expected: usize,
    pub(super) last: State,
    connected: bool,
    /// When the first forecast of each model was seen.
    pub(super) first_forecasts: BTreeMap<String, f64>,
    told: VecDeque<String>,
    told_shift: BTreeMap<String, f64>,
    shares: VecDeque<(f64, BTreeMap<SocketAddr, f64>)>,
    newcomers: BTreeSet<SocketAddr>,
    /// Added servers that got a share.
    pub(super) in_use: BTreeSet<SocketAddr>,
    pub(super) slowed: Option<Slowed>,
}

/// The slowed server, and what became of its share of its model's requests.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slowed {
    pub(super) address: SocketAddr,
    pub(super) at: f64,
    pub(super) before: f64,
    pub(super) lowest: f64,
    /// What its capacity alone would give it when the share was lowest.
    pub(super) capacity_share: Option<f64>,
    pub(super) halved_after: Option<f64>,
    pub(super) recovered_at: Option<f64>,
    pub(super) latest: f64,
}

impl Observations {
    pub(super) fn new(proxies_expected: usize) -> Self {
        Self { proxies_expected, ..Self::default() }
    }

    /// How many Envoys had all of their configuration when last seen.
    pub(super) fn proxies_in_sync(&self) -> usize {
        self.last.proxies.iter().filter(|proxy| proxy.state == "in_sync").count()
    }

    /// Takes in the state at `at`; returns what is new in it, as lines to show.
    pub(super) fn observe(&mut self, at: f64, state: State) -> Vec<String> {
        let mut lines = Vec::new();
        let in_sync = state.proxies.iter().filter(|proxy| proxy.state == "in_sync").count();
        if !self.connected && in_sync >= self.proxies_expected {
            self.connected = true;
            let names: Vec<&str> = state.proxies.iter().map(|proxy| proxy.node_id.as_str()).collect();
            let servers = state.backends.iter().filter(|backend| backend.state == "ready").count();
            lines.push(format!("fleet connected: {} in sync, {servers} servers ready", names.join(", ")));
        }
        self.new_forecasts(at, &state, &mut lines);
        for decision in state.decisions.iter().rev() {
            lines.extend(self.new_decision(at, decision));
        }
        for event in state.events.iter().rev().filter(|event| event.level != "info") {
            if self.is_new(format!("{} {}", event.at, event.message)) {
                lines.push(format!("{}: {}", event.level, event.message));
            }
        }
        self.new_shares(at, &state, &mut lines);
        self.last = state;
        lines
    }

    /// Notes that `address` was slowed.
    pub(super) fn slow(&mut self, at: f64, address: SocketAddr) {
        let recent = self.shares.iter().filter(|(time, _)| at - time <= BEFORE_SECONDS);
        let recent: Vec<f64> = recent.filter_map(|(_, shares)| shares.get(&address).copied()).collect();
        let before = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        self.slowed = Some(Slowed {
            address,
            at,
            before,
            lowest: before,
            capacity_share: None,
            halved_after: None,
            recovered_at: None,
            latest: before,
        });
    }

    /// Notes that the slowed server is well again.
    pub(super) fn recover(&mut self, at: f64) {
        if let Some(slowed) = &mut self.slowed {
            slowed.recovered_at = Some(at);
        }
    }

    /// Notes a server that was added while the demo runs.
    pub(super) fn added(&mut self, address: SocketAddr) {
        self.newcomers.insert(address);
    }

    fn new_forecasts(&mut self, at: f64, state: &State, lines: &mut Vec<String>) {
        for model in &state.models {
            let Some(forecast) = &model.forecast else { continue };
            if self.first_forecasts.contains_key(&model.name) {
                continue;
            }
            self.first_forecasts.insert(model.name.clone(), at);
            let ahead = forecast.cold_start.as_ref().map_or_else(String::new, |ahead| {
                let (q50, q90) = (ahead.q50, ahead.q90);
                format!(": {q50:.1} rps in {:.0} s, below {q90:.1} at 90 %", ahead.horizon_seconds)
            });
            lines.push(format!("first forecast for {} by {}{ahead}", model.name, forecast.expert));
        }
    }

    fn new_decision(&mut self, at: f64, decision: &Decision) -> Option<String> {
        if !self.is_new(decision.id.clone()) {
            return None;
        }
        match decision.kind.as_str() {
            "replicas" => Some(format!("decided: {}", decision.summary)),
            "weights" => {
                let model = decision.model.clone().unwrap_or_default();
                let shift =
                    |from: Option<f64>, to: Option<f64>| (to.unwrap_or(0.0) - from.unwrap_or(0.0)).abs();
                let large =
                    decision.changes.iter().any(|change| shift(change.from, change.to) >= LARGE_SHIFT);
                let told_at = self.told_shift.get(&model);
                let due = told_at.is_none_or(|told| large && at - told >= SHIFT_PAUSE_SECONDS);
                due.then(|| {
                    self.told_shift.insert(model.clone(), at);
                    format!("shares of {model} moved: {}", decision.summary)
                })
            }
            _ => None,
        }
    }

    fn new_shares(&mut self, at: f64, state: &State, lines: &mut Vec<String>) {
        let shares: BTreeMap<SocketAddr, f64> =
            state.backends.iter().filter_map(|backend| Some((backend.address, backend.share?))).collect();
        for newcomer in &self.newcomers {
            let share = shares.get(newcomer).copied().unwrap_or(0.0);
            if share > 0.0 && self.in_use.insert(*newcomer) {
                lines.push(format!("{newcomer} takes {:.0} % of its model's requests", share * 100.0));
            }
        }
        if let Some(slowed) = &mut self.slowed {
            let backend = state.backends.iter().find(|backend| backend.address == slowed.address);
            if let Some(share) = backend.and_then(|backend| backend.share) {
                slowed.latest = share;
                if slowed.recovered_at.is_none() {
                    if share < slowed.lowest {
                        slowed.lowest = share;
                        slowed.capacity_share = backend.and_then(|backend| backend.capacity_share);
                    }
                    if slowed.halved_after.is_none() && slowed.before > 0.0 && share <= slowed.before / 2.0 {
                        let after = at - slowed.at;
                        slowed.halved_after = Some(after);
                        lines.push(format!(
                            "its share fell from {:.0} % to {:.0} % within {after:.0} s",
                            slowed.before * 100.0,
                            share * 100.0
                        ));
                    }
                }
            }
        }
        self.shares.push_back((at, shares));
        while self.shares.front().is_some_and(|(time, _)| at - time > 2.0 * BEFORE_SECONDS) {
            self.shares.pop_front();
        }
    }

    fn is_new(&mut self, key: String) -> bool {
        if self.told.contains(&key) {
            return false;
        }
        self.told.push_back(key);
        if self.told.len() > REMEMBERED {
            self.told.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ADDRESS: &str = "127.0.0.1:9001";

    fn state(share: f64) -> State {
        serde_json::from_value(json!({
            "models": [{ "name": "m", "demand_rps": 1.0, "forecast": { "issued_at": "", "expert": "regression",
                "error_ratio": null, "cold_start": { "horizon_seconds": 10, "q50": 2.0, "q90": 3.0 } } }],
            "pools": [],
            "backends": [{ "address": ADDRESS, "model": "m", "state": "ready", "share": share, "capacity_share": 0.3 }],
            "proxies": [{ "node_id": "envoy-a", "state": "in_sync" }],
            "decisions": [{ "id": "d", "kind": "weights", "model": "m", "summary": "so", "changes": [] }],
            "totals": { "telemetry_rows": 1, "telemetry_dropped": 0, "scrapes_failed": 0, "forecasts": 1,
                "decisions": 1, "weight_changes": 1, "webhooks_delivered": 0, "webhooks_failed": 0 },
            "events": [{ "at": "x", "level": "warning", "message": "careful" }],
        }))
        .unwrap()
    }

    #[test]
    fn each_thing_is_told_once() {
        let mut observations = Observations::new(1);
        let lines = observations.observe(0.0, state(0.3));
        for word in ["connected", "first forecast", "moved", "careful"] {
            assert!(lines.iter().any(|line| line.contains(word)), "{word}: {lines:?}");
        }
        assert_eq!(observations.observe(1.0, state(0.3)), Vec::<String>::new());
    }

    #[test]
    fn the_halving_of_the_slowed_share_is_timed() {
        let mut observations = Observations::new(1);
        observations.observe(9.0, state(0.3));
        observations.slow(10.0, ADDRESS.parse().unwrap());
        observations.observe(12.0, state(0.2));
        let lines = observations.observe(13.0, state(0.14));
        assert!(lines[0].contains("from 30 % to 14 % within 3 s"), "{lines:?}");
        observations.recover(20.0);
        observations.observe(30.0, state(0.05));
        let slowed = observations.slowed.unwrap();
        assert_eq!(
            (slowed.lowest, slowed.latest),
            (0.14, 0.05),
            "what comes after the recovery is not its low"
        );
    }

    #[test]
    fn a_newcomer_is_told_when_it_gets_a_share() {
        let mut observations = Observations::new(1);
        observations.added(ADDRESS.parse().unwrap());
        observations.observe(0.0, state(0.0));
        assert!(observations.in_use.is_empty());
        let lines = observations.observe(1.0, state(0.1));
        assert!(lines.iter().any(|line| line.contains("takes 10 %")), "{lines:?}");
    }
}
