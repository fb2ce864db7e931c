use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};

use super::{Backend, Fleet, Health, Membership};

/// Neither a page nor an answer came for so long, seconds, or for so many times as an answer takes.
const LEAST_SECONDS: f64 = 15.0;
const RESPONSES: f64 = 3.0;
/// Requests that would have come meanwhile if each backend had as many: fewer say nothing.
const LEAST_REQUESTS: f64 = 20.0;

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
        suspects.into_iter().filter(|backend| !serves(backend)).map(|backend| backend.address).collect()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::config;
    use crate::telemetry::Sample;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + second)
    }

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    /// Three backends with two requests/s each; from second 30 on no page comes from the first one, nor does an answer if `serves`
    /// is false.
    fn after(seconds: i64, refused: Option<bool>, serves: bool) -> Fleet {
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
                    fleet.observe_failure(address(number), refused, "no answer".to_owned());
                } else {
                    let sample = Sample {
                        at: at(second),
                        backend: address(number).to_string().into(),
                        interval_seconds: 1.0,
                        running: Some(1.0),
                        arrived: 2.0,
                        ..Sample::default()
                    };
                    fleet.observe(address(number), sample, at(second));
                }
                if !is_quiet || serves {
                    fleet.backend_mut(address(number)).unwrap().gateway.served_at = Some(at(second));
                }
            }
        }
        fleet
    }

    #[test]
    fn a_backend_is_frozen_when_neither_pages_nor_answers_come() {
        let frozen = |seconds, refused, serves| {
            let found = after(seconds, refused, serves).frozen(at(seconds));
            found.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(frozen(40, None, false), []);
        assert_eq!(frozen(50, None, false), [address(1)]);
        assert_eq!(frozen(50, None, true), [], "its page alone is out of reach");
        assert_eq!(frozen(50, Some(false), false), [], "it answers, though not with a page");
    }

    #[test]
    fn nobody_is_frozen_where_most_are_silent() {
        let mut fleet = after(50, None, false);
        for number in [2, 3] {
            fleet.observe_failure(address(number), None, "no answer".to_owned());
        }
        assert_eq!(fleet.frozen(at(70)).len(), 0);
    }
}
