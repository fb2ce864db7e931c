//! Whatever a proxy sends, it is read within bounds or refused.

use std::sync::Arc;
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use envoy_types::pb::envoy::config::core::v3::{Locality, Metadata};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterStats, EndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats,
};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, HttpAccessLogEntry, HttpResponseProperties, ResponseFlags,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Duration, Struct, Timestamp, UInt32Value, Value};
use proptest::collection::{hash_map, vec};
use proptest::option;
use proptest::prelude::*;

use clairvoy_xds::{LoadReport, ReportingNode};

use super::load::tests::envoy_address;
use super::{BODY_TAG, Exchange, NodeLoad, ROUTE_TAG, Reading, Tally};
use crate::config::{self, AccessLog, MetadataKey, TokenSource};
use crate::fleet::Fleet;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 123_456_789).unwrap()
}

fn whole() -> impl Strategy<Value = i64> {
    let edges = [i64::MIN, i64::MAX, -1, 0, 1, 86_400, DateTime::<Utc>::MAX_UTC.timestamp()];
    let near = now().timestamp();
    prop_oneof![any::<i64>(), prop::sample::select(edges.to_vec()), near - 100_000..near + 100]
}

fn nanos() -> impl Strategy<Value = i32> {
    prop_oneof![any::<i32>(), 0..1_000_000_000, Just(i32::MIN), Just(i32::MAX)]
}

fn duration() -> impl Strategy<Value = Option<Duration>> {
    option::of((whole(), nanos()).prop_map(|(seconds, nanos)| Duration { seconds, nanos }))
}

/// Numbers as text, and what is none.
fn text() -> impl Strategy<Value = String> {
    let odd =
        ["NaN", "inf", "-inf", "1e308", "-0", "", "86400000000", "86400000000.0001", "9".repeat(400).leak()];
    prop_oneof![
        prop::sample::select(odd.to_vec()).prop_map(str::to_owned),
        any::<u64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| number.to_string()),
        (0u64..100_000_000).prop_map(|number| number.to_string()),
        ".{0,12}",
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let kind = prop_oneof![any::<f64>().prop_map(Kind::NumberValue), text().prop_map(Kind::StringValue)];
    option::of(kind).prop_map(|kind| Value { kind })
}

fn common() -> impl Strategy<Value = AccessLogCommon> {
    let times = (option::of((whole(), nanos())), duration(), duration(), duration());
    let tags = hash_map(prop::sample::select(vec![BODY_TAG.to_owned(), ROUTE_TAG.to_owned()]), text(), 0..3);
    let flags = option::of(vec(any::<bool>(), 4));
    let place = (option::of((".{0,20}", any::<u32>())), ".{0,20}", option::of(value()));
    (times, tags, flags, place, any::<i32>(), 0..16i32).prop_map(|(times, tags, flags, place, odd, kind)| {
        let flags = flags.map(|flags| ResponseFlags {
            upstream_connection_failure: flags[0],
            no_healthy_upstream: flags[1],
            upstream_remote_reset: flags[2],
            downstream_connection_termination: flags[3],
            ..ResponseFlags::default()
        });
        let metadata = place.2.map(|value| Metadata {
            filter_metadata: [("ns".to_owned(), Struct { fields: [("key".to_owned(), value)].into() })]
                .into(),
            ..Metadata::default()
        });
        let address = |(address, port): (String, u32)| {
            if odd % 2 == 0 { envoy_address("10.0.0.1", 8000) } else { envoy_address(&address, port) }
        };
        AccessLogCommon {
            start_time: times.0.map(|(seconds, nanos)| Timestamp { seconds, nanos }),
            duration: times.1,
            time_to_first_upstream_tx_byte: times.2,
            time_to_last_upstream_rx_byte: times.3,
            custom_tags: tags,
            response_flags: flags,
            upstream_remote_address: place.0.map(address),
            upstream_cluster: place.1,
            metadata,
            access_log_type: if odd % 5 == 0 { odd } else { kind },
            ..AccessLogCommon::default()
        }
    })
}

fn entry() -> impl Strategy<Value = HttpAccessLogEntry> {
    let code = option::of(prop_oneof![any::<u32>(), Just(200), Just(503)]);
    let headers = hash_map(
        prop::sample::select(vec!["content-type".to_owned(), "x-tokens".to_owned()]),
        prop_oneof![text(), Just("text/event-stream".to_owned())],
        0..3,
    );
    let response = (code, headers).prop_map(|(code, response_headers)| HttpResponseProperties {
        response_code: code.map(|value| UInt32Value { value }),
        response_headers,
        ..HttpResponseProperties::default()
    });
    (option::of(common()), option::of(response)).prop_map(|(common_properties, response)| {
        HttpAccessLogEntry { common_properties, response, ..HttpAccessLogEntry::default() }
    })
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..1000]
}

fn locality() -> impl Strategy<Value = UpstreamLocalityStats> {
    let endpoint =
        (option::of((prop_oneof![Just("10.0.0.1".to_owned()), ".{0,10}"], any::<u32>())), count(), count());
    let endpoint = endpoint.prop_map(|(address, running, errors)| UpstreamEndpointStats {
        address: address.map(|(address, port)| envoy_address(&address, port)),
        total_requests_in_progress: running,
        total_error_requests: errors,
        ..UpstreamEndpointStats::default()
    });
    let counts = (count(), count(), count());
    (option::of(".{0,5}"), counts, vec(endpoint, 0..4), any::<f64>()).prop_map(
        |(zone, counts, endpoints, metric)| UpstreamLocalityStats {
            locality: zone.map(|sub_zone| Locality { sub_zone, ..Locality::default() }),
            total_issued_requests: counts.0,
            total_error_requests: counts.1,
            total_requests_in_progress: counts.2,
            upstream_endpoint_stats: endpoints,
            load_metric_stats: vec![EndpointLoadMetricStats {
                total_metric_value: metric,
                ..Default::default()
            }],
            ..UpstreamLocalityStats::default()
        },
    )
}

fn cluster() -> impl Strategy<Value = ClusterStats> {
    let name = prop_oneof![Just("m".to_owned()), ".{0,10}"];
    (name, vec(locality(), 0..3), count(), duration()).prop_map(
        |(cluster_name, localities, dropped, interval)| ClusterStats {
            cluster_name,
            upstream_locality_stats: localities,
            total_dropped_requests: dropped,
            load_report_interval: interval,
            ..ClusterStats::default()
        },
    )
}

fn report(cluster_stats: Vec<ClusterStats>) -> LoadReport {
    let node = ReportingNode { id: "a".to_owned(), ..ReportingNode::default() };
    LoadReport { node: Arc::new(node), at: SystemTime::from(now()), cluster_stats }
}

fn fleet() -> Fleet {
    let text = "models: [{ name: m, pools: [p] }]\npools: [{ name: p, backends: [\"10.0.0.1:8000\"] }]\n";
    let mut fleet = Fleet::default();
    fleet.reconcile(&config::parse(text).unwrap(), now());
    fleet.set_report_interval(2.0);
    fleet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_entry_is_read_within_bounds_or_refused(entries in vec((entry(), 1.0..100.0f64), 1..20)) {
        let key = MetadataKey { namespace: "ns".to_owned(), key: "key".to_owned() };
        let reading = Reading::new(&AccessLog {
            prompt_tokens: Some(TokenSource::Header("x-tokens".to_owned())),
            output_tokens: Some(TokenSource::Metadata(key)),
            ..AccessLog::default()
        });
        let (mut tally, mut fleet) = (Tally::default(), fleet());
        for (entry, weight) in &entries {
            let Ok(exchange) = Exchange::read(entry, &reading, now()) else { continue };
            prop_assert!(exchange.arrived_at <= now() + TimeDelta::seconds(10), "{exchange:?}");
            prop_assert!(exchange.arrived_at >= now() - TimeDelta::seconds(86_400 + 60), "{exchange:?}");
            let times = [exchange.first_byte_seconds, exchange.response_seconds];
            prop_assert!(times.into_iter().flatten().all(|time| (0.0..=86_400.0).contains(&time)));
            let tokens = [exchange.prompt_tokens, exchange.output_tokens];
            prop_assert!(tokens.into_iter().flatten().all(|count| (0.0..=1e8).contains(&count)));
            tally.add(&exchange, *weight);
        }
        if let Some(summary) = tally.take(2.0) {
            let text = serde_json::to_string(&summary).unwrap();
            prop_assert!(!text.contains("null"), "a number that JSON cannot hold: {text}");
            fleet.observe_log(&summary, now());
            prop_assert!(fleet.demand("m", now()).requests_per_second.is_finite());
        }
    }

    #[test]
    fn any_report_is_read_within_bounds(clusters in vec(vec(cluster(), 0..4), 1..4)) {
        let mut fleet = fleet();
        for clusters in clusters {
            let (load, left_out) = NodeLoad::read(&report(clusters), "edge", 3);
            prop_assert!(load.endpoints.len() <= 3 && left_out <= 100);
            let text = serde_json::to_string(&load).unwrap();
            prop_assert!(!text.contains("null"), "a number that JSON cannot hold: {text}");
            fleet.observe_load(&load);
        }
        for second in 0..20 {
            let later = now() + TimeDelta::seconds(second);
            fleet.look_at_reports(&["a".to_owned()].into(), later);
            for (_, step) in fleet.close_steps(later) {
                prop_assert!(step.requests_per_second.is_none_or(|rate| (0.0..1e9).contains(&rate)));
            }
        }
        let demand = fleet.demand("m", now()).requests_per_second;
        prop_assert!((0.0..1e9).contains(&demand), "{}", demand);
        let running = fleet.reports().in_progress("10.0.0.1:8000".parse().unwrap());
        prop_assert!(running.is_none_or(|count| (0.0..1e9).contains(&count)), "{:?}", running);
    }
}

#[test]
fn of_a_million_endpoints_as_many_as_allowed_are_read_and_the_others_counted() {
    let endpoint = |number: u32| UpstreamEndpointStats {
        address: Some(envoy_address(&std::net::Ipv4Addr::from(number).to_string(), 80)),
        total_requests_in_progress: 1,
        ..UpstreamEndpointStats::default()
    };
    let locality = |number: u32| UpstreamLocalityStats {
        locality: Some(Locality { sub_zone: format!("group {number}"), ..Locality::default() }),
        upstream_endpoint_stats: (50 * number..50 * (number + 1)).map(endpoint).collect(),
        ..UpstreamLocalityStats::default()
    };
    let stats = ClusterStats {
        cluster_name: "m".to_owned(),
        upstream_locality_stats: (0..20_000).map(locality).collect(),
        ..ClusterStats::default()
    };
    let (load, left_out) = NodeLoad::read(&report(vec![stats]), "edge", 100_000);
    assert_eq!((load.endpoints.len(), load.groups.len()), (100_000, 10_000));
    assert_eq!(left_out, 900_000 + 10_000);
}
