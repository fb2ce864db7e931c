use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};

use super::{Backend, Fleet, Health, Membership};

/// Neither a page nor an answer came for so long, seconds, or for so many times as an answer takes.
const LEAST_SECONDS: f64 = 15.0;
const RESPONSES: f64 = 3.0;
/// Requests that would have come meanwhile if each backend had as many, and answers if this one had as many as before: fewer
/// say nothing.
const LEAST_REQUESTS: f64 = 20.0;
/// How many answers a backend had before says little of what it has after so many times as long.
const MOST_TIMES: f64 = 4.0;

impl Fleet {
    /// Backends that stand still as a whole, though the kernel still accepts connections for them: scrapes get no answer of any
    /// kind and Envoys none to their requests, while most of the model's others tell of themselves and serve.
    pub(super) fn frozen(&self, now: DateTime<Utc>) -> BTreeSet<SocketAddr> {
        let mut suspects: BTreeMap<&str, Vec<&Backend>> = BTreeMap::new();
        let is_quiet = |backend: &&Backend| {
            let told_at = backend.sample.as_ref().map_or(backend.joined_at, |sample| sample.at);
            backend.is_mute()
                && backend.membership == Membership::Active
                && backend.health(now) != Health::Down
                // Of one that was never served nobody can say that it has ceased to.
                && backend.gateway.served_at.is_some()
                && (now - told_at).as_seconds_f64() > LEAST_SECONDS
        };
        for backend in self.backends.values().filter(is_quiet) {
            suspects.entry(&backend.model).or_default().push(backend);
        }
        let of_model = |(model, suspects): (&str, Vec<&Backend>)| self.unanswering(model, suspects, now);
        suspects.into_iter().flat_map(of_model).collect()
    }

    fn unanswering(&self, model: &str, suspects: Vec<&Backend>, now: DateTime<Utc>) -> Vec<SocketAddr> {
        let all: Vec<&Backend> =
            self.of_model(model).filter(|backend| backend.membership == Membership::Active).collect();
        let fresh = all.iter().filter(|backend| backend.health(now) == Health::Ready).count();
        let responses = all.iter().filter_map(|backend| backend.gateway.response_seconds());
        let patience = LEAST_SECONDS.max(RESPONSES * responses.fold(0.0, f64::max));
        let serves = |backend: &Backend| {
            backend.gateway.served_at.is_some_and(|at| (now - at).as_seconds_f64() <= patience)
        };
        let each = self.demand(model, now).admitted_rps() * patience / all.len().max(1) as f64;
        if 2 * fresh < all.len() || each < LEAST_REQUESTS || !all.iter().any(|backend| serves(backend)) {
            return Vec::new();
        }
        // One with a small share may well have had none.
        let missed = |backend: &Backend| {
            let seconds = backend.gateway.served_at.map_or(0.0, |at| (now - at).as_seconds_f64());
            backend.gateway.answered_rps() * seconds.min(MOST_TIMES * patience)
        };
        let is_frozen = |backend: &&Backend| !serves(backend) && missed(backend) >= LEAST_REQUESTS;
        suspects.into_iter().filter(is_frozen).map(|backend| backend.address).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::config;
    use crate::envoy::{BackendLog, Responses};
    use crate::fleet::GatewayView;
    use crate::telemetry::Sample;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + second)
    }

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    /// What is told of the first of three backends. The others have three requests/s each; from second 30 on no page of it comes.
    #[derive(Clone, Copy)]
    struct Quiet {
        refused: Option<bool>,
        /// Whether answers of it still come.
        serves: bool,
        /// Answers/s of it while they come.
        rps: f64,
    }

    const QUIET: Quiet = Quiet { refused: None, serves: false, rps: 2.0 };

    /// The fleet after some seconds.
    fn after(seconds: i64, quiet: Quiet) -> Fleet {
        let list = [1, 2, 3].map(|number| format!("\"{}\"", address(number))).join(", ");
        let config = config::parse(&format!(
            "models: [{{ name: m, pools: [p] }}]\npools: [{{ name: p, backends: [{list}] }}]\n"
        ));
        let mut fleet = Fleet::default();
        fleet.reconcile(&config.unwrap(), at(0));
        for second in 0..seconds {
            for number in 1..=3 {
                let is_quiet = number == 1 && second >= 30;
                if is_quiet {
                    fleet.observe_failure(address(number), quiet.refused, "no answer".to_owned());
                } else {
                    let sample = Sample {
                        at: at(second),
                        backend: address(number).to_string().into(),
                        interval_seconds: 1.0,
                        running: Some(1.0),
                        arrived: 3.0,
                        ..Sample::default()
                    };
                    fleet.observe(address(number), sample, at(second));
                }
                if !is_quiet || quiet.serves {
                    let count = if number == 1 { quiet.rps } else { 3.0 };
                    let log = BackendLog {
                        requests: count,
                        responses: Responses { count, sum_seconds: count },
                        ..BackendLog::default()
                    };
                    fleet.backend_mut(address(number)).unwrap().gateway.observe(&log, at(second));
                }
            }
        }
        fleet
    }

    fn frozen(seconds: i64, quiet: Quiet) -> Vec<SocketAddr> {
        after(seconds, quiet).frozen(at(seconds)).into_iter().collect()
    }

    #[test]
    fn a_backend_is_frozen_when_neither_pages_nor_answers_come() {
        assert_eq!(frozen(40, QUIET), []);
        assert_eq!(frozen(50, QUIET), [address(1)]);
        assert_eq!(frozen(50, Quiet { serves: true, ..QUIET }), [], "its page alone is out of reach");
        let answers = Quiet { refused: Some(false), ..QUIET };
        assert_eq!(frozen(50, answers), [], "it answers, though not with a page");
    }

    #[test]
    fn one_that_had_few_requests_is_not_frozen_because_it_has_none() {
        let few = Quiet { rps: 0.1, ..QUIET };
        assert_eq!((frozen(50, few), frozen(120, few)), (vec![], vec![]));
        // One that had more is found when enough would have come.
        let some = Quiet { rps: 1.0, ..QUIET };
        assert_eq!((frozen(50, some), frozen(120, some)), (vec![], vec![address(1)]));
        let mut fleet = after(120, QUIET);
        fleet.backend_mut(address(1)).unwrap().gateway = GatewayView::default();
        assert_eq!(fleet.frozen(at(120)).len(), 0, "it never had any");
    }

    #[test]
    fn nobody_is_frozen_where_most_are_silent() {
        let mut fleet = after(50, QUIET);
        for number in [2, 3] {
            fleet.observe_failure(address(number), None, "no answer".to_owned());
        }
        assert_eq!(fleet.frozen(at(70)).len(), 0);
    }
}
