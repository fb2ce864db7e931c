use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpResponseProperties,
};
use envoy_types::pb::google::protobuf::Duration;

use super::load::socket;

/// The custom tag with the time from the first byte sent to the backend until the first byte of its answer's body, in
/// microseconds. Engines answer a stream with headers at once, so the first byte of all says nothing.
pub const BODY_TAG: &str = "clairvoy.body_us";
/// The custom tag with the time from the first byte of the request until the first byte sent to the backend, in
/// microseconds.
pub const ROUTE_TAG: &str = "clairvoy.route_us";

/// No first byte is believed to have taken longer, seconds.
const LONGEST_SECONDS: f64 = 86_400.0;

/// One entry of an access log, as far as it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// The backend that was asked last; none when none was found.
    pub backend: Option<SocketAddr>,
    /// The cluster that the route named.
    pub cluster: String,
    /// True when the request is over; false for what is told of one that still runs.
    pub is_over: bool,
    /// When the backend was sent its first byte.
    pub arrived_at: DateTime<Utc>,
    /// From then to the first byte of the body; only of streamed answers with status 200, and told once a request.
    pub first_byte_seconds: Option<f64>,
    /// What the client was answered; 0 when it left before.
    pub status: u32,
    /// True when the answer was not made or not finished by the backend: 5xx, a reset, no connection.
    pub failed: bool,
    /// True when the request was never sent to a backend, because there was none or none could be reached.
    pub unplaced: bool,
}

impl Exchange {
    /// Reads an entry. `stream_interval_seconds` is how often requests that still run are told of: an entry tells a first
    /// byte only when those before it cannot have.
    pub fn read(entry: &HttpAccessLogEntry, stream_interval_seconds: f64) -> Option<Self> {
        let common = entry.common_properties.as_ref()?;
        let is_over = match AccessLogType::try_from(common.access_log_type) {
            Ok(AccessLogType::DownstreamEnd | AccessLogType::NotSet) => true,
            Ok(AccessLogType::DownstreamPeriodic) => false,
            _ => return None,
        };
        let started = common.start_time.as_ref()?;
        let started = DateTime::from_timestamp(started.seconds, u32::try_from(started.nanos).ok()?)?;
        let route_seconds = tag_seconds(common, ROUTE_TAG);
        let backend = common.upstream_remote_address.as_ref().and_then(socket);
        let response = entry.response.as_ref();
        let status = response.and_then(|response| response.response_code).map_or(0, |code| code.value);
        let body_seconds = tag_seconds(common, BODY_TAG)
            .filter(|_| backend.is_some() && status == 200 && response.is_some_and(is_streamed));
        let first_byte_seconds = body_seconds.filter(|body| {
            let elapsed = common.duration.as_ref().map(seconds);
            is_news(route_seconds.unwrap_or(0.0) + body, elapsed, is_over, stream_interval_seconds)
        });
        let flags = common.response_flags.unwrap_or_default();
        let reset = flags.upstream_connection_termination
            || flags.upstream_remote_reset
            || flags.upstream_protocol_error
            || flags.upstream_request_timeout
            || flags.stream_idle_timeout;
        let unreachable = flags.no_healthy_upstream || flags.upstream_connection_failure;
        Some(Self {
            backend,
            cluster: common.upstream_cluster.clone(),
            is_over,
            arrived_at: started
                + TimeDelta::microseconds((1e6 * route_seconds.unwrap_or(0.0)).round() as i64),
            first_byte_seconds,
            status,
            failed: is_over && (reset || unreachable || (status >= 500 && backend.is_some())),
            unplaced: is_over && unreachable && route_seconds.is_none(),
        })
    }
}

/// Whether no entry before this one told the first byte, which came `first_seconds` after the request: those before were
/// made at the multiples of the interval. An entry at a multiple is off by a few milliseconds; then it may be told never,
/// but not twice.
fn is_news(first_seconds: f64, elapsed: Option<f64>, is_over: bool, interval: f64) -> bool {
    let Some(elapsed) = elapsed else { return is_over };
    let due = (first_seconds / interval).floor() + 1.0;
    if is_over { elapsed < due * interval } else { (elapsed / interval).round() == due }
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

    pub(in super::super) fn entry(status: u32, route_us: u64, body_us: u64) -> HttpAccessLogEntry {
        let tags = [(ROUTE_TAG, route_us), (BODY_TAG, body_us)];
        HttpAccessLogEntry {
            common_properties: Some(AccessLogCommon {
                start_time: Some(Timestamp { seconds: 1_000, nanos: 500_000_000 }),
                duration: Some(Duration { seconds: 3, nanos: 0 }),
                upstream_remote_address: Some(envoy_address("10.0.0.1", 8000)),
                upstream_cluster: "chat".to_owned(),
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
        let exchange = Exchange::read(&entry(200, 20_000, 400_000), 10.0).unwrap();
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
            assert_eq!(Exchange::read(&entry, 10.0).unwrap().first_byte_seconds, None, "{entry:?}");
        }
        assert!(Exchange::read(&entry(503, 0, 1), 10.0).unwrap().failed);
        let mut start = entry(0, 0, 0);
        common(&mut start).access_log_type = AccessLogType::DownstreamStart.into();
        assert_eq!(Exchange::read(&start, 10.0), None);
    }

    #[test]
    fn a_request_that_no_backend_took_is_unplaced_and_one_that_a_client_left_has_not_failed() {
        let mut refused = entry(503, 0, 0);
        let properties = common(&mut refused);
        properties.custom_tags.clear();
        properties.response_flags =
            Some(ResponseFlags { upstream_connection_failure: true, ..ResponseFlags::default() });
        let exchange = Exchange::read(&refused, 10.0).unwrap();
        assert!(exchange.unplaced && exchange.failed);
        let mut left = entry(0, 0, 0);
        common(&mut left).response_flags =
            Some(ResponseFlags { downstream_connection_termination: true, ..ResponseFlags::default() });
        assert!(!Exchange::read(&left, 10.0).unwrap().failed);
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
