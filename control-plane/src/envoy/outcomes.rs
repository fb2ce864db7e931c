use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use chrono::{DateTime, TimeDelta, Utc};

use crate::config::{Config, Rung};
use crate::decide::PartOutcomes;

use super::{Exchange, Part};

/// By model, when requests began that may be compared; of models that are not in it none are.
pub type ComparedSince = Arc<ArcSwap<BTreeMap<String, DateTime<Utc>>>>;

/// The models whose parts are compared, and how often Envoys tell of requests that still run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Promises {
    models: BTreeMap<String, Promise>,
    stream_interval_seconds: f64,
}

/// Of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Promise {
    /// The time within which users are promised the first byte.
    seconds: f64,
    /// Requests that began before do not count.
    since: DateTime<Utc>,
}

impl Promises {
    /// The canaries of a configuration that are compared since some time.
    pub fn of(config: &Config, compared_since: &BTreeMap<String, DateTime<Utc>>) -> Self {
        let canaries = config.models.iter().filter(|model| model.rung == Rung::Canary);
        let compared = canaries.filter_map(|model| {
            let since = *compared_since.get(&model.name)?;
            Some((model.name.clone(), Promise { seconds: model.slo.ttft_p95.as_seconds(), since }))
        });
        Self {
            models: compared.collect(),
            stream_interval_seconds: config.telemetry.access_log.stream_interval.as_seconds(),
        }
    }
}

/// Counts an entry for the part in which its request is. A request that waits for its first byte counts as late once: when it
/// is first told of after the time that was promised.
pub(super) fn count(parts: &mut BTreeMap<String, PartOutcomes>, exchange: &Exchange, promises: &Promises) {
    let Some(promise) = promises.models.get(&exchange.model) else { return };
    let Some(part) = exchange.part.filter(|_| !exchange.refused) else { return };
    let promised = promise.seconds;
    // At most a day, so it is a number of microseconds.
    let route = TimeDelta::microseconds((1e6 * exchange.route_seconds) as i64);
    if exchange.arrived_at.checked_sub_signed(route).is_none_or(|began| began < promise.since) {
        return;
    }
    if !parts.contains_key(&exchange.model) {
        parts.insert(exchange.model.clone(), PartOutcomes::default());
    }
    let Some(parts) = parts.get_mut(&exchange.model) else { return };
    let outcomes = match part {
        Part::Steered => &mut parts.steered,
        Part::Unsteered => &mut parts.unsteered,
    };
    if exchange.is_over && (exchange.failed || exchange.status != 0) {
        outcomes.requests += 1;
        outcomes.failures += u64::from(exchange.failed);
    }
    let interval = promises.stream_interval_seconds;
    // Entries of requests that run come at the multiples of the interval, from the request's first byte on.
    let multiples = |seconds: f64| ((exchange.route_seconds + seconds) / interval).floor();
    if let Some(seconds) = exchange.first_byte_seconds {
        let is_told = multiples(seconds) > multiples(promised);
        outcomes.count_first_byte(seconds, promised, is_told);
    } else if let Some(silent) = exchange.silent_seconds.filter(|silent| *silent > promised) {
        let number = if exchange.is_over {
            multiples(silent)
        } else {
            ((exchange.route_seconds + silent) / interval).round() - 1.0
        };
        if number == multiples(promised) {
            outcomes.count_silent();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::entry::tests::{entry, every_ten_seconds, told_at};
    use super::super::static_cluster;
    use super::*;

    fn promises(seconds: f64, stream_interval_seconds: f64) -> Promises {
        let promise = Promise { seconds, since: DateTime::from_timestamp(1_000, 0).unwrap() };
        Promises { models: [("chat".to_owned(), promise)].into(), stream_interval_seconds }
    }

    fn counted(entries: &[Exchange], promises: &Promises) -> PartOutcomes {
        let mut parts = BTreeMap::new();
        entries.iter().for_each(|exchange| count(&mut parts, exchange, promises));
        parts.remove("chat").unwrap_or_default()
    }

    /// A request of 3 s to a cluster.
    fn exchange(cluster: &str, status: u32, body_us: u64) -> Exchange {
        let mut entry = entry(status, 0, body_us);
        entry.common_properties.as_mut().unwrap().upstream_cluster = cluster.to_owned();
        Exchange::read(&entry, &every_ten_seconds(), told_at()).unwrap()
    }

    #[test]
    fn requests_count_for_the_part_whose_cluster_they_took() {
        let (steered, twin) = ("chat", static_cluster("chat"));
        let told = counted(
            &[
                exchange(steered, 200, 100_000),
                exchange(steered, 200, 700_000),
                exchange(steered, 503, 0),
                exchange(&twin, 200, 100_000),
                exchange(&twin, 404, 0),
                exchange("other", 503, 0),
                Exchange { refused: true, ..exchange(steered, 503, 0) },
            ],
            &promises(0.5, 10.0),
        );
        let PartOutcomes { steered, unsteered } = told;
        assert_eq!((steered.requests, steered.failures), (3, 1));
        assert_eq!((steered.first_bytes, steered.late, steered.timed), (2, 1, 2));
        assert_eq!(
            (unsteered.requests, unsteered.failures),
            (2, 0),
            "a client's fault is none of the backend"
        );
        assert_eq!((unsteered.first_bytes, unsteered.late), (1, 0));
    }

    /// Of what began before, the short ones have ended in both parts, and long ones end in the part that was larger.
    #[test]
    fn requests_that_began_before_what_is_steered_do_not_count() {
        let began = |second: i64| Exchange {
            arrived_at: DateTime::from_timestamp(second, 200_000_000).unwrap(),
            route_seconds: 0.3,
            ..exchange("chat", 200, 100_000)
        };
        let told = counted(&[began(999), began(1_000), began(1_001)], &promises(0.5, 10.0));
        assert_eq!((told.steered.requests, told.steered.timed), (1, 1), "{told:?}");
    }

    #[test]
    fn a_client_that_leaves_late_without_an_answer_has_waited_too_long_and_one_that_leaves_early_tells_nothing()
     {
        let left = |silent| Exchange {
            status: 0,
            first_byte_seconds: None,
            silent_seconds: Some(silent),
            ..exchange("chat", 200, 100_000)
        };
        let told = counted(&[left(0.4), left(3.0)], &promises(0.5, 10.0)).steered;
        assert_eq!((told.requests, told.first_bytes, told.late, told.timed), (0, 1, 1, 0));
    }

    proptest! {
        #[test]
        fn a_late_request_is_late_once_however_often_it_is_told_of(
            wait in 0.01f64..40.0, rest in 0.01f64..40.0, answers in any::<bool>(),
            promised in 0.1f64..20.0, interval in 1.0f64..15.0, route in 0.0f64..0.5,
        ) {
            let near = |time: f64| ((time / interval).round() * interval - time).abs() < 0.01;
            prop_assume!(!near(route + wait) && !near(route + promised) && !near(route + wait + rest));
            prop_assume!((wait - promised).abs() > 0.01);
            let end = if answers { wait + rest } else { wait };
            let silent = Exchange {
                is_over: false, status: 0, first_byte_seconds: None, route_seconds: route,
                ..exchange("chat", 200, 100_000)
            };
            let mut told = Vec::new();
            for number in 1u32.. {
                let at = f64::from(number) * interval - route;
                if at >= end {
                    break;
                }
                // The first entry after the first byte tells it.
                let is_first = at - interval < wait;
                told.push(if at < wait {
                    Exchange { silent_seconds: Some(at), ..silent.clone() }
                } else {
                    Exchange { status: 200, first_byte_seconds: is_first.then_some(wait), ..silent.clone() }
                });
            }
            let is_told = told.iter().any(|entry| entry.first_byte_seconds.is_some());
            told.push(if answers {
                let first = (!is_told).then_some(wait);
                Exchange { is_over: true, status: 200, first_byte_seconds: first, ..silent }
            } else {
                Exchange { is_over: true, silent_seconds: Some(wait), ..silent }
            });
            let counted = counted(&told, &promises(promised, interval)).steered;
            let is_late = wait > promised;
            prop_assert_eq!(counted.late, u64::from(is_late), "{:?}", told);
            prop_assert_eq!(counted.first_bytes, u64::from(is_late || answers));
            prop_assert_eq!(counted.timed, u64::from(answers));
        }
    }
}
