use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::AnomalyKind;

use crate::config::Config;
use crate::decide::{Judged, Seen, Signs, Verdict};
use crate::telemetry::Sample;

use super::{Backend, Fleet, Health};

/// A backend that had requests for this long, and of which nothing came out, hangs: nothing is learned of it meanwhile, seconds.
const HANGS_AFTER_SECONDS: f64 = 5.0;

/// What the verdict on a backend is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    signs: Signs,
    judged: Judged,
    /// Since when it has been up; none for one that was up before it was known.
    up_since: Option<DateTime<Utc>>,
    /// Whether it served before it was known, as far as can be told.
    served_before: bool,
    /// Whether its engine counts what comes out, and for how long nothing has although it had requests.
    tells_output: bool,
    still_seconds: f64,
}

impl Standing {
    /// Notes telemetry: whether it is the first, and whether it shows that the backend has started anew.
    pub(super) fn showed(&mut self, is_first: bool, has_restarted: bool, now: DateTime<Utc>) {
        if has_restarted || (is_first && !self.served_before) {
            self.up_since = Some(now);
        }
        if has_restarted {
            // What was found of the process before says nothing of this one.
            self.judged = Judged::default();
        }
    }

    /// Whether it hangs, or did so until this sample.
    pub(super) fn hangs(&mut self, sample: &Sample) -> bool {
        let did = self.still_seconds >= HANGS_AFTER_SECONDS;
        let requests = sample.running.unwrap_or(0.0) + sample.queue_depth.unwrap_or(0.0);
        let output = sample.completed + sample.output_tokens + sample.ttft_count + sample.iterations;
        self.tells_output |= output > 0.0;
        if output > 0.0 || requests < 1.0 || !self.tells_output {
            self.still_seconds = 0.0;
        } else {
            self.still_seconds += sample.interval_seconds.max(0.0);
        }
        did || self.still_seconds >= HANGS_AFTER_SECONDS
    }
}

/// A backend on which the verdict is another one than before.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVerdict {
    /// The backend.
    pub address: SocketAddr,
    /// Its pool.
    pub pool: String,
    /// The verdict before.
    pub before: Verdict,
    /// The verdict now.
    pub verdict: Verdict,
    /// What it goes by, where it goes by more than the time since the start.
    pub sign: Option<AnomalyKind>,
}

impl Fleet {
    /// Judges every backend anew: once a second. Returns those on which the verdict has changed.
    pub fn judge(&mut self, config: &Config, now: DateTime<Utc>) -> Vec<NewVerdict> {
        let mut changed = Vec::new();
        let frozen = self.frozen(now);
        for backend in self.backends.values_mut() {
            let is_down = backend.health(now) == Health::Down;
            backend.down_since = is_down.then(|| backend.down_since.map_or(now, |since| since.min(now)));
            let warm_up_seconds = config.pool(&backend.pool).map_or(0.0, |pool| pool.warm_up.as_seconds());
            let standing = &backend.standing;
            let seen = Seen {
                signs: standing.signs,
                kv_used: backend.sample.as_ref().and_then(|sample| sample.kv_used),
                answers: backend.health(now) == Health::Ready,
                is_frozen: frozen.contains(&backend.address),
                up_seconds: standing.up_since.map(|since| (now - since).as_seconds_f64()),
                warm_up_seconds,
            };
            let judged = standing.judged.next(&seen, now);
            let (before, verdict, sign) = (standing.judged.verdict(), judged.verdict(), judged.sign());
            backend.standing.judged = judged;
            if before != verdict {
                let (address, pool) = (backend.address, backend.pool.clone());
                changed.push(NewVerdict { address, pool, before, verdict, sign });
            }
        }
        changed
    }

    /// Takes all backends for ones that served before they were known: what is there at the start, and what the last run left.
    pub fn take_for_served(&mut self) {
        for backend in self.backends.values_mut() {
            backend.standing.served_before = true;
            backend.standing.up_since = None;
        }
    }
}

impl Backend {
    /// Takes the scores of what the learner finds of it at the moment.
    pub fn take_signs(&mut self, signs: Signs) {
        self.standing.signs = signs;
    }

    /// The verdict on it, by which its share is bounded.
    pub fn judged(&self) -> &Judged {
        &self.standing.judged
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::config;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + second)
    }

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    fn config(backends: &[u16]) -> Config {
        let list: Vec<String> = backends.iter().map(|number| format!("\"{}\"", address(*number))).collect();
        let list = list.join(", ");
        config::parse(&format!(
            "models: [{{ name: m, pools: [p] }}]\npools: [{{ name: p, backends: [{list}] }}]\n"
        ))
        .unwrap()
    }

    /// One that makes 30 tokens of two requests in a second; none while it hangs.
    fn sample(number: u16, second: i64, hangs: bool) -> Sample {
        let output = if hangs { 0.0 } else { 30.0 };
        Sample {
            at: at(second),
            backend: address(number).to_string().into(),
            interval_seconds: 1.0,
            queue_depth: Some(if hangs { 2.0 } else { 0.0 }),
            running: Some(if hangs { 1.0 } else { 2.0 }),
            inter_token_seconds: (!hangs).then_some(0.04),
            output_tokens: output,
            completed: output / 30.0,
            ..Sample::default()
        }
    }

    #[test]
    fn a_hang_is_not_learned_for_a_small_and_slow_engine() {
        let mut fleet = Fleet::default();
        fleet.reconcile(&config(&[1]), at(0));
        for second in 0..60 {
            fleet.observe(address(1), sample(1, second, false), at(second));
        }
        let before = fleet.backend(address(1)).unwrap().profile();
        assert!(before.is_some());
        for second in 60..120 {
            fleet.observe(address(1), sample(1, second, true), at(second));
        }
        let late = Sample { inter_token_seconds: Some(30.0), ..sample(1, 120, false) };
        fleet.observe(address(1), late, at(120));
        let backend = fleet.backend(address(1)).unwrap();
        assert_eq!((backend.profile(), backend.slowdown()), (before, 1.0));
    }

    #[test]
    fn who_joins_or_starts_anew_warms_up_and_who_was_there_does_not() {
        let mut fleet = Fleet::default();
        fleet.reconcile(&config(&[1]), at(0));
        fleet.observe(address(1), sample(1, 0, false), at(0));
        fleet.take_for_served();
        let both = config(&[1, 2]);
        fleet.reconcile(&both, at(10));
        let verdict = |fleet: &Fleet, number| fleet.backend(address(number)).unwrap().judged().verdict();
        let show = |fleet: &mut Fleet, number, second, interval_seconds| {
            let sample = Sample { interval_seconds, ..sample(number, second, false) };
            fleet.observe(address(number), sample, at(second));
        };
        show(&mut fleet, 1, 11, 1.0);
        show(&mut fleet, 2, 11, 0.0);
        assert!(fleet.judge(&both, at(12)).iter().all(|new| new.verdict == Verdict::Warming));
        assert_eq!((verdict(&fleet, 1), verdict(&fleet, 2)), (Verdict::Usual, Verdict::Warming));
        show(&mut fleet, 2, 41, 1.0);
        let _ = fleet.judge(&both, at(41));
        assert_eq!(verdict(&fleet, 2), Verdict::Usual);
        // Its counters went back. The other's went on: nobody could connect to it, but it did not start anew.
        show(&mut fleet, 1, 42, 0.0);
        let _ = fleet.judge(&both, at(43));
        assert_eq!(verdict(&fleet, 1), Verdict::Warming);
        (0..3).for_each(|_| fleet.observe_failure(address(2), Some(true), "refused".to_owned()));
        show(&mut fleet, 2, 50, 1.0);
        let _ = fleet.judge(&both, at(50));
        assert_eq!(verdict(&fleet, 2), Verdict::Usual);
    }
}
