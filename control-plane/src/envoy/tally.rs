use std::collections::BTreeMap;
use std::net::SocketAddr;

use chrono::{DateTime, Utc};

use super::Exchange;
use super::lanes;
use super::log_summary::{FirstBytes, LogSummary, MOST_NAMES, Responses};
use super::outcomes::{self, Promises};

/// Gathers entries until they are taken.
#[derive(Debug, Default)]
pub struct Tally {
    summary: LogSummary,
    /// The canaries, with what their users are promised.
    promises: Promises,
    /// Seconds to the first byte with their weights, by backend and second of arrival.
    first_bytes: BTreeMap<(SocketAddr, i64), Vec<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    arrived_at: DateTime<Utc>,
    seconds: f64,
    weight: f64,
}

impl Tally {
    /// Says whose parts are to be counted.
    pub fn watch(&mut self, promises: Promises) {
        self.promises = promises;
    }

    /// Adds an entry that stands for `weight` ones.
    pub fn add(&mut self, exchange: &Exchange, weight: f64) {
        let LogSummary { backends, unplaced, lanes, parts, .. } = &mut self.summary;
        lanes::count(lanes, exchange, weight);
        outcomes::count(parts, exchange, &self.promises);
        if exchange.unplaced {
            if let Some(requests) = unplaced.get_mut(&exchange.model) {
                *requests += weight;
            } else if unplaced.len() < MOST_NAMES {
                unplaced.insert(exchange.model.clone(), weight);
            }
        }
        let Some(address) = exchange.backend else { return };
        if backends.len() >= MOST_NAMES && !backends.contains_key(&address) {
            return;
        }
        let backend = backends.entry(address).or_default();
        if exchange.is_over && (exchange.failed || exchange.status != 0) {
            backend.requests += weight;
            backend.errors += if exchange.failed { weight } else { 0.0 };
        }
        if exchange.is_over {
            backend.tokens.prompt += weight * exchange.prompt_tokens.unwrap_or(0.0);
            backend.tokens.output += weight * exchange.output_tokens.unwrap_or(0.0);
        }
        if let Some(seconds) = exchange.response_seconds {
            backend.responses.add(Responses { count: weight, sum_seconds: weight * seconds });
        }
        if let Some(seconds) = exchange.first_byte_seconds {
            let key = (address, exchange.arrived_at.timestamp());
            let seen = Seen { arrived_at: exchange.arrived_at, seconds, weight };
            self.first_bytes.entry(key).or_default().push(seen);
        }
    }

    /// Takes what was gathered since the last call; none when nothing was. An entry stands for `factor` of them: those
    /// that were lost before they came here.
    pub fn take(&mut self, factor: f64) -> Option<LogSummary> {
        let mut summary = std::mem::take(&mut self.summary);
        for ((address, _), seen) in std::mem::take(&mut self.first_bytes) {
            let backend = summary.backends.entry(address).or_default();
            backend.first_bytes.extend(first_bytes(seen));
        }
        summary.scale(factor);
        let is_empty = summary.backends.is_empty() && summary.unplaced.is_empty() && summary.lanes.is_empty();
        let is_empty = is_empty && summary.parts.is_empty();
        (!is_empty).then_some(summary)
    }
}

fn first_bytes(mut seen: Vec<Seen>) -> Option<FirstBytes> {
    seen.sort_by(|left, right| left.seconds.total_cmp(&right.seconds));
    let requests: f64 = seen.iter().map(|one| one.weight).sum();
    let first = seen.first()?;
    let mean =
        |of: &dyn Fn(&Seen) -> f64| seen.iter().map(|one| one.weight * of(one)).sum::<f64>() / requests;
    let after = mean(&|one| (one.arrived_at - first.arrived_at).as_seconds_f64());
    let quantile = |level: f64| {
        let mut below = 0.0;
        let reached = seen.iter().find(|one| {
            below += one.weight;
            below >= level * requests
        });
        reached.or(seen.last()).map_or(first.seconds, |one| one.seconds)
    };
    Some(FirstBytes {
        arrived_at: first.arrived_at + chrono::TimeDelta::microseconds((1e6 * after) as i64),
        requests,
        mean_seconds: mean(&|one| one.seconds),
        p50_seconds: quantile(0.5),
        p95_seconds: quantile(0.95),
    })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::data::accesslog::v3::{AccessLogType, HttpAccessLogEntry, ResponseFlags};
    use envoy_types::pb::google::protobuf::Duration;

    use super::super::entry::tests::{entry, every_ten_seconds, told_at};
    use super::super::lanes::LaneLog;
    use super::super::log_summary::Tokens;
    use super::*;

    fn read(entry: &HttpAccessLogEntry) -> Exchange {
        Exchange::read(entry, &every_ten_seconds(), told_at()).unwrap()
    }

    #[test]
    fn first_bytes_are_gathered_by_backend_and_second_of_arrival() {
        let mut tally = Tally::default();
        let exchange = |route_us, body_us| read(&entry(200, route_us, body_us));
        tally.add(&exchange(0, 200_000), 1.0);
        tally.add(&exchange(100_000, 500_000), 3.0);
        tally.add(&exchange(600_000, 900_000), 1.0);
        tally.add(&read(&entry(503, 0, 0)), 2.0);
        let summary = tally.take(1.0).unwrap();
        let backend = &summary.backends[&"10.0.0.1:8000".parse().unwrap()];
        assert_eq!((backend.requests, backend.errors), (7.0, 2.0));
        assert_eq!(backend.responses, Responses { count: 5.0, sum_seconds: 12.5 });
        let [early, late] = backend.first_bytes.as_slice() else { panic!("{backend:?}") };
        assert_eq!(early.requests, 4.0);
        assert!((early.mean_seconds - 0.425).abs() < 1e-9, "{early:?}");
        assert_eq!((early.p50_seconds, early.p95_seconds), (0.5, 0.5));
        assert_eq!(early.arrived_at.timestamp_millis(), 1_000_575);
        assert_eq!((late.requests, late.mean_seconds), (1.0, 0.9));
        assert_eq!(tally.take(1.0), None);
    }

    #[test]
    fn a_backend_whose_clients_give_up_has_answered_nothing() {
        let answered = |exchanges: &[Exchange]| {
            let mut tally = Tally::default();
            exchanges.iter().for_each(|exchange| tally.add(exchange, 1.0));
            let summary = tally.take(1.0).unwrap();
            let (_, backend) = summary.backends.into_iter().next().unwrap();
            (backend.has_answers(), backend.requests, backend.errors)
        };
        let mut left = entry(0, 0, 0);
        left.common_properties.as_mut().unwrap().response_flags =
            Some(ResponseFlags { downstream_connection_termination: true, ..ResponseFlags::default() });
        let left = read(&left);
        assert!(left.is_over && !left.failed && left.first_byte_seconds.is_none(), "{left:?}");
        assert_eq!(answered(&[left.clone(), left.clone()]), (false, 0.0, 0.0));
        assert_eq!(answered(&[read(&entry(503, 0, 0)), left.clone()]), (false, 1.0, 1.0));
        assert_eq!(answered(&[read(&entry(404, 0, 0)), left.clone()]), (true, 1.0, 0.0));
        let begun = Exchange { first_byte_seconds: Some(0.1), ..left };
        assert_eq!(answered(&[begun]), (true, 0.0, 0.0));
    }

    #[test]
    fn tokens_are_summed_by_weight_and_lost_entries_are_made_up_for() {
        let mut tally = Tally::default();
        let exchange = read(&entry(200, 0, 100_000));
        tally.add(&Exchange { prompt_tokens: Some(100.0), ..exchange.clone() }, 2.0);
        tally.add(&Exchange { output_tokens: Some(30.0), ..exchange.clone() }, 1.0);
        tally.add(&Exchange { backend: None, unplaced: true, ..exchange }, 1.0);
        let summary = tally.take(1.5).unwrap();
        let (_, backend) = summary.backends.iter().next().unwrap();
        assert_eq!(backend.tokens, Tokens { prompt: 300.0, output: 45.0 });
        assert_eq!((backend.requests, backend.responses.count), (4.5, 4.5));
        assert_eq!(backend.responses.mean_seconds(), Some(2.5));
        let first = backend.first_bytes[0];
        assert!(first.requests == 4.5 && (first.mean_seconds - 0.1).abs() < 1e-9, "{first:?}");
        assert_eq!(summary.unplaced["chat"], 1.5);
    }

    #[test]
    fn requests_are_counted_by_lane_and_refusals_apart() {
        let mut tally = Tally::default();
        let mut told = |route: &str, details: &str, status| {
            let mut entry = entry(status, 0, 100_000);
            entry.common_properties.as_mut().unwrap().route_name = route.to_owned();
            entry.response.as_mut().unwrap().response_code_details = details.to_owned();
            tally.add(&read(&entry), 1.0);
        };
        told("interactive/org/chat", "via_upstream", 200);
        told("interactive/org/chat", "drop_overload", 503);
        told("batch/org/chat", "via_upstream", 200);
        told("batch/org/chat", "drop_overload", 503);
        told("refused/org/chat", "direct_response", 429);
        told("of-a-user", "via_upstream", 200);
        let lanes = tally.take(2.0).unwrap().lanes;
        let counts = |admitted, refused, dropped| lanes::LaneCounts { admitted, refused, dropped };
        let log = LaneLog { interactive: counts(2.0, 2.0, 2.0), batch: counts(2.0, 4.0, 2.0) };
        assert_eq!(lanes, [("org/chat".to_owned(), log)].into());
    }

    #[test]
    fn a_long_request_counts_for_its_lane_as_it_is_first_told_of_and_once() {
        let mut tally = Tally::default();
        let mut told = |seconds, kind: AccessLogType| {
            let mut entry = entry(200, 0, 100_000);
            let common = entry.common_properties.as_mut().unwrap();
            common.route_name = "batch/org/chat".to_owned();
            common.duration = Some(Duration { seconds, nanos: 1_000_000 });
            common.access_log_type = kind.into();
            tally.add(&read(&entry), 1.0);
            tally.take(1.0).and_then(|summary| Some(summary.lanes.get("org/chat")?.batch.admitted))
        };
        let seen = [
            told(10, AccessLogType::DownstreamPeriodic),
            told(20, AccessLogType::DownstreamPeriodic),
            told(27, AccessLogType::DownstreamEnd),
        ];
        assert_eq!(seen, [Some(1.0), None, None]);
        assert_eq!(told(9, AccessLogType::DownstreamEnd), Some(1.0), "it was never told of before");
    }

    #[test]
    fn only_of_canaries_both_parts_are_counted_and_never_more_than_were_seen() {
        let text = |rung: &str| {
            format!("models: [{{ name: chat, pools: [p], rung: {rung} }}]\npools: [{{ name: p }}]\n")
        };
        let parts = |rung: &str| {
            let mut tally = Tally::default();
            let since = [("chat".to_owned(), DateTime::UNIX_EPOCH)].into();
            tally.watch(Promises::of(&crate::config::parse(&text(rung)).unwrap(), &since));
            tally.add(&read(&entry(200, 0, 100_000)), 5.0);
            let mut all = tally.take(2.0).unwrap();
            all.append(all.clone());
            all.parts
        };
        assert!(parts("enforce").is_empty());
        let canary = &parts("canary")["chat"];
        assert_eq!((canary.steered.requests, canary.steered.timed, canary.unsteered.requests), (2, 2, 0));
    }

    #[test]
    fn summaries_that_wait_become_one_in_which_nothing_is_lost() {
        let second = |arrived: i64| {
            let mut tally = Tally::default();
            let arrived_at = DateTime::from_timestamp(arrived, 0).unwrap();
            tally.add(&Exchange { arrived_at, ..read(&entry(200, 0, 100_000)) }, 1.0);
            tally.take(1.0).unwrap()
        };
        let (mut all, mut left_out) = (second(0), 0);
        for number in 1..100 {
            left_out += all.append(second(number));
        }
        let (_, backend) = all.backends.iter().next().unwrap();
        assert_eq!((all.seconds, backend.requests, backend.responses.count), (100.0, 100.0, 100.0));
        assert_eq!((left_out, backend.first_bytes.len()), (40, 60));
        assert_eq!(backend.first_bytes[0].arrived_at.timestamp(), 40, "the newest are kept");
    }
}
