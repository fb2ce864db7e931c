use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpResponseProperties,
};
use envoy_types::pb::google::protobuf::Duration;

use super::Reading;
use super::clusters::{Part, model_of_cluster, part_of_cluster};
use super::lanes::{Lane, read_route};
use super::load::socket;

/// The custom tag with the time from the first byte sent to the backend until the first byte of its answer's body, in
/// microseconds. Engines answer a stream with headers at once, so the first byte of all says nothing.
pub const BODY_TAG: &str = "clairvoy.body_us";
/// The custom tag with the time from the first byte of the request until the first byte sent to the backend, in
/// microseconds.
pub const ROUTE_TAG: &str = "clairvoy.route_us";

/// What Envoy calls a request that an assignment told it to drop.
const DROPPED: &str = "drop_overload";
/// Nothing is believed to have taken longer, seconds.
const LONGEST_SECONDS: f64 = 86_400.0;

/// One entry of an access log, as far as it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The backend that was asked last; none when none was found.
    pub backend: Option<SocketAddr>,
    /// The model whose route or cluster took it.
    pub model: String,
    /// Its lane; none where the route is not one of ours.
    pub lane: Option<Lane>,
    /// True when Envoy refused it because it was told that more comes than can be served: a route, or its cluster.
    pub refused: bool,
    /// True when its cluster did, as the assignment said: load reports have these, and none that a route refused.
    pub dropped: bool,
    /// True when no entry before this one told of it, as long as Envoy logs at the interval that is configured.
    pub is_first: bool,
    /// True when the request is over; false for what is told of one that still runs.
    pub is_over: bool,
    /// The part of the model's requests in which it is: by the cluster that it took. None: neither of a model's two.
    pub part: Option<Part>,
    /// From its first byte to the first byte sent to the backend, seconds; 0 before that.
    pub route_seconds: f64,
    /// For how long the backend has been silent, seconds, when no byte of the answer's body came until now or until the client
    /// left.
    pub silent_seconds: Option<f64>,
    /// When the backend was sent its first byte.
    pub arrived_at: DateTime<Utc>,
    /// From then to the first byte of the body; only of streamed answers with status 200, and told once a request.
    pub first_byte_seconds: Option<f64>,
    /// From then to the last byte of the answer; only of answers with status 2xx that were finished.
    pub response_seconds: Option<f64>,
    /// Tokens of the prompt; only of requests that are over, where the configuration says that they are told.
    pub prompt_tokens: Option<f64>,
    /// Tokens of the answer, likewise.
    pub output_tokens: Option<f64>,
    /// What the client was answered; 0 when it left before.
    pub status: u32,
    /// True when the answer was not made or not finished by the backend: 5xx, a reset, no connection.
    pub failed: bool,
    /// True when the request was never sent to a backend, because there was none or none could be reached.
    pub unplaced: bool,
}

/// Why an entry is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It tells of no request to a gateway, or not when.
    Unusable,
    /// It was made too long ago.
    TooOld,
    /// It was made in the future.
    Ahead,
}

impl Exchange {
    /// Reads an entry that came in at `at`: of a request that still runs it tells a first byte only when entries before it
    /// cannot have.
    ///
    /// # Errors
    /// An entry of another kind, without what is needed, or of another time.
    pub fn read(entry: &HttpAccessLogEntry, how: &Reading, at: DateTime<Utc>) -> Result<Self, Refused> {
        let common = entry.common_properties.as_ref().ok_or(Refused::Unusable)?;
        let is_over = match AccessLogType::try_from(common.access_log_type) {
            Ok(AccessLogType::DownstreamEnd | AccessLogType::NotSet) => true,
            Ok(AccessLogType::DownstreamPeriodic) => false,
            _ => return Err(Refused::Unusable),
        };
        let elapsed = common.duration.as_ref().map(seconds);
        let route_seconds = tag_seconds(common, ROUTE_TAG);
        let arrived_at = arrived_at(common, route_seconds.unwrap_or(0.0), elapsed, how, at)?;
        let backend = common.upstream_remote_address.as_ref().and_then(socket);
        let response = entry.response.as_ref();
        let status = response.and_then(|response| response.response_code).map_or(0, |code| code.value);
        let body_seconds = tag_seconds(common, BODY_TAG)
            .filter(|_| backend.is_some() && status == 200 && response.is_some_and(is_streamed));
        let first_byte_seconds = body_seconds.filter(|body| {
            let first = route_seconds.unwrap_or(0.0) + body;
            is_news(first, elapsed, is_over, how.stream_interval_seconds)
        });
        let flags = common.response_flags.unwrap_or_default();
        let reset = flags.upstream_connection_termination
            || flags.upstream_remote_reset
            || flags.upstream_protocol_error
            || flags.upstream_request_timeout
            || flags.stream_idle_timeout;
        let unreachable = flags.no_healthy_upstream || flags.upstream_connection_failure;
        let is_whole = is_over
            && (200..300).contains(&status)
            && !(reset || unreachable || flags.downstream_connection_termination);
        let (prompt_tokens, output_tokens) =
            if is_over && backend.is_some() { how.tokens(entry) } else { (None, None) };
        let route = read_route(&common.route_name);
        // A refusal asks no cluster.
        let model = match route {
            Some((_, model, _)) => model,
            None => model_of_cluster(&common.upstream_cluster),
        };
        let is_silent = backend.is_some()
            && tag_seconds(common, BODY_TAG).is_none()
            && (status == 0 || (status == 200 && response.is_some_and(is_streamed)))
            && (!is_over || flags.downstream_connection_termination)
            && !(reset || unreachable);
        let silent_seconds = elapsed.filter(|_| is_silent);
        let silent_seconds = silent_seconds.map(|elapsed| (elapsed - route_seconds.unwrap_or(0.0)).max(0.0));
        let is_dropped = response.is_some_and(|response| response.response_code_details == DROPPED);
        Ok(Self {
            backend,
            model: model.to_owned(),
            lane: route.map(|(lane, ..)| lane),
            refused: is_dropped || route.is_some_and(|(.., refuses)| refuses),
            dropped: is_dropped,
            is_first: is_first(elapsed, is_over, how.stream_interval_seconds),
            is_over,
            part: part_of_cluster(&common.upstream_cluster, model),
            route_seconds: route_seconds.unwrap_or(0.0),
            silent_seconds,
            arrived_at,
            first_byte_seconds,
            response_seconds: backend.filter(|_| is_whole).and_then(|_| response_seconds(common)),
            prompt_tokens,
            output_tokens,
            status,
            failed: is_over && (reset || unreachable || (status >= 500 && backend.is_some())),
            unplaced: is_over && unreachable && route_seconds.is_none(),
        })
    }
}

/// When the backend was asked. The entry itself was made `elapsed` after the request began, which is what is held against
/// the clock: an old request that ends now is news.
fn arrived_at(
    common: &AccessLogCommon,
    route_seconds: f64,
    elapsed: Option<f64>,
    how: &Reading,
    at: DateTime<Utc>,
) -> Result<DateTime<Utc>, Refused> {
    let started = common.start_time.as_ref().ok_or(Refused::Unusable)?;
    let nanos = u32::try_from(started.nanos).map_err(|_| Refused::Unusable)?;
    let started = DateTime::from_timestamp(started.seconds, nanos).ok_or(Refused::Unusable)?;
    // At most a day, so it is a number of microseconds.
    let route = TimeDelta::microseconds((1e6 * route_seconds).round() as i64);
    let arrived_at = started.checked_add_signed(route).ok_or(Refused::Unusable)?;
    let age_seconds = (at - started).as_seconds_f64() - elapsed.unwrap_or(0.0).clamp(0.0, LONGEST_SECONDS);
    if age_seconds > how.max_age_seconds {
        return Err(Refused::TooOld);
    }
    if (arrived_at - at).as_seconds_f64() > how.max_future_seconds {
        return Err(Refused::Ahead);
    }
    Ok(arrived_at)
}

/// From the first byte that the backend was sent to the last one that it answered.
fn response_seconds(common: &AccessLogCommon) -> Option<f64> {
    let begin = common.time_to_first_upstream_tx_byte.as_ref().map(seconds)?;
    let end = common.time_to_last_upstream_rx_byte.as_ref().map(seconds)?;
    Some(end - begin).filter(|seconds| (0.0..=LONGEST_SECONDS).contains(seconds))
}

/// Whether no entry before this one told the first byte, which came `first_seconds` after the request: those before were
/// made at the multiples of the interval. An entry at a multiple is off by a few milliseconds; then it may be told never,
/// but not twice. An Envoy that logs at another interval breaks both (docs/telemetry.md).
fn is_news(first_seconds: f64, elapsed: Option<f64>, is_over: bool, interval: f64) -> bool {
    let Some(elapsed) = elapsed else { return is_over };
    let due = (first_seconds / interval).floor() + 1.0;
    if is_over { elapsed < due * interval } else { (elapsed / interval).round() == due }
}

/// Whether this is the entry at the first multiple of the interval, or that of the end before it. Off by a few milliseconds a
/// request may be told of never, but not twice.
fn is_first(elapsed: Option<f64>, is_over: bool, interval: f64) -> bool {
    is_news(0.0, elapsed, is_over, interval)
}

fn is_streamed(response: &HttpResponseProperties) -> bool {
    response.response_headers.get("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"))
}

fn tag_seconds(common: &AccessLogCommon, tag: &str) -> Option<f64> {
    let microseconds: f64 = common.custom_tags.get(tag)?.parse().ok()?;
    let seconds = microseconds / 1e6;
    (0.0..=LONGEST_SECONDS).contains(&seconds).then_some(seconds)
}

fn seconds(duration: &Duration) -> f64 {
    duration.seconds as f64 + f64::from(duration.nanos) / 1e9
}

#[cfg(test)]
pub(super) mod tests {
    use envoy_types::pb::envoy::data::accesslog::v3::ResponseFlags;
    use envoy_types::pb::google::protobuf::{Timestamp, UInt32Value};
    use proptest::prelude::*;

    use super::super::load::tests::envoy_address;
    use super::*;
    use crate::config::AccessLog;

    /// When the entries of tests come in: as their requests end.
    pub(in super::super) fn told_at() -> DateTime<Utc> {
        DateTime::from_timestamp(1_003, 600_000_000).unwrap()
    }

    pub(in super::super) fn every_ten_seconds() -> Reading {
        Reading::new(&AccessLog::default())
    }

    fn read(entry: &HttpAccessLogEntry) -> Result<Exchange, Refused> {
        Exchange::read(entry, &every_ten_seconds(), told_at())
    }

    /// An entry about a request that took 3 s.
    pub(in super::super) fn entry(status: u32, route_us: u64, body_us: u64) -> HttpAccessLogEntry {
        let tags = [(ROUTE_TAG, route_us), (BODY_TAG, body_us)];
        HttpAccessLogEntry {
            common_properties: Some(AccessLogCommon {
                start_time: Some(Timestamp { seconds: 1_000, nanos: 500_000_000 }),
                duration: Some(Duration { seconds: 3, nanos: 0 }),
                upstream_remote_address: Some(envoy_address("10.0.0.1", 8000)),
                upstream_cluster: "chat".to_owned(),
                time_to_first_upstream_tx_byte: Some(Duration { seconds: 0, nanos: 100_000_000 }),
                time_to_last_upstream_rx_byte: Some(Duration { seconds: 2, nanos: 600_000_000 }),
                custom_tags: tags.map(|(tag, value)| (tag.to_owned(), value.to_string())).into(),
                access_log_type: AccessLogType::DownstreamEnd.into(),
                ..AccessLogCommon::default()
            }),
            response: Some(HttpResponseProperties {
                response_code: Some(UInt32Value { value: status }),
                response_headers: [("content-type".to_owned(), "text/event-stream".to_owned())].into(),
                ..HttpResponseProperties::default()
            }),
            ..HttpAccessLogEntry::default()
        }
    }

    fn common(entry: &mut HttpAccessLogEntry) -> &mut AccessLogCommon {
        entry.common_properties.as_mut().unwrap()
    }

    #[test]
    fn a_streamed_answer_tells_its_first_byte_and_when_the_backend_was_asked() {
        let exchange = read(&entry(200, 20_000, 400_000)).unwrap();
        assert_eq!(exchange.first_byte_seconds, Some(0.4));
        assert_eq!(exchange.arrived_at.timestamp_millis(), 1_000_520);
        assert_eq!(exchange.backend, "10.0.0.1:8000".parse().ok());
        assert!(!exchange.failed && !exchange.unplaced && exchange.is_over);
    }

    #[test]
    fn whole_answers_errors_and_nonsense_tell_no_first_byte() {
        let mut whole = entry(200, 0, 400_000);
        let headers = &mut whole.response.as_mut().unwrap().response_headers;
        headers.insert("content-type".to_owned(), "application/json".to_owned());
        let mut nonsense = entry(200, 0, 0);
        common(&mut nonsense).custom_tags.insert(BODY_TAG.to_owned(), "-1".to_owned());
        for entry in [whole, entry(500, 0, 400_000), nonsense] {
            assert_eq!(read(&entry).unwrap().first_byte_seconds, None, "{entry:?}");
        }
        assert!(read(&entry(503, 0, 1)).unwrap().failed);
        let mut start = entry(0, 0, 0);
        common(&mut start).access_log_type = AccessLogType::DownstreamStart.into();
        assert_eq!(read(&start), Err(Refused::Unusable));
    }

    #[test]
    fn only_a_whole_answer_tells_how_long_it_took() {
        assert_eq!(read(&entry(200, 0, 0)).unwrap().response_seconds, Some(2.5));
        let mut left = entry(200, 0, 0);
        common(&mut left).response_flags =
            Some(ResponseFlags { downstream_connection_termination: true, ..ResponseFlags::default() });
        let mut runs = entry(200, 0, 0);
        common(&mut runs).access_log_type = AccessLogType::DownstreamPeriodic.into();
        let mut backwards = entry(200, 0, 0);
        common(&mut backwards).time_to_last_upstream_rx_byte = Some(Duration { seconds: 0, nanos: 1 });
        for entry in [left, runs, backwards, entry(404, 0, 0), entry(503, 0, 0)] {
            assert_eq!(read(&entry).unwrap().response_seconds, None, "{entry:?}");
        }
    }

    #[test]
    fn entries_of_another_time_are_refused_and_long_requests_are_not() {
        let began = |seconds_ago: i64, took: i64| {
            let mut entry = entry(200, 0, 0);
            let seconds = told_at().timestamp() - seconds_ago;
            common(&mut entry).start_time = Some(Timestamp { seconds, nanos: 0 });
            common(&mut entry).duration = Some(Duration { seconds: took, nanos: 0 });
            read(&entry).map(|exchange| exchange.arrived_at.timestamp())
        };
        assert_eq!(began(7_200, 7_199), Ok(told_at().timestamp() - 7_200));
        assert_eq!(began(7_200, 7_100), Err(Refused::TooOld));
        assert_eq!(began(-9, 0), Ok(told_at().timestamp() + 9));
        assert_eq!(began(-12, 0), Err(Refused::Ahead));
        let mut last = entry(200, 86_400_000_000, 0);
        common(&mut last).start_time =
            Some(Timestamp { seconds: DateTime::<Utc>::MAX_UTC.timestamp(), nanos: 999_999_999 });
        assert_eq!(read(&last), Err(Refused::Unusable), "a day later there is no time any more");
    }

    #[test]
    fn a_request_that_no_backend_took_is_unplaced_and_one_that_a_client_left_has_not_failed() {
        let mut refused = entry(503, 0, 0);
        let properties = common(&mut refused);
        properties.custom_tags.clear();
        properties.response_flags =
            Some(ResponseFlags { upstream_connection_failure: true, ..ResponseFlags::default() });
        let exchange = read(&refused).unwrap();
        assert!(exchange.unplaced && exchange.failed);
        let mut left = entry(0, 0, 0);
        common(&mut left).response_flags =
            Some(ResponseFlags { downstream_connection_termination: true, ..ResponseFlags::default() });
        assert!(!read(&left).unwrap().failed);
    }

    proptest! {
        #[test]
        fn a_first_byte_is_told_once(first in 0.0..60.0f64, rest in 0.0..60.0f64, interval in 1.0..20.0f64) {
            let end = first + rest;
            let periodic = (1..).map(|number| f64::from(number) * interval).take_while(|at| *at < end);
            let told = periodic
                .filter(|at| *at > first && is_news(first, Some(*at), false, interval))
                .count() + usize::from(is_news(first, Some(end), true, interval));
            prop_assert_eq!(told, 1);
        }

        #[test]
        fn a_first_byte_is_never_told_twice_though_timers_are_late(
            first in 0.0..60.0f64, rest in 0.0..60.0f64, late in 0.0..0.02f64,
        ) {
            let end = first + rest;
            let periodic = (1..).map(|number| f64::from(number) * 10.0 + late).take_while(|at| *at < end);
            let told = periodic
                .filter(|at| *at > first && is_news(first, Some(*at), false, 10.0))
                .count() + usize::from(is_news(first, Some(end), true, 10.0));
            prop_assert!(told <= 1, "{}", told);
        }
    }
}
