//! What an Envoy sends, as frames of gRPC.

use bytes::{BufMut as _, Bytes, BytesMut};
use chrono::Utc;
use envoy_types::pb::envoy::config::core::v3::{
    Address, Extension, Locality, Node, SocketAddress, address, socket_address,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterStats, UpstreamEndpointStats, UpstreamLocalityStats,
};
use envoy_types::pb::envoy::data::accesslog::v3::{
    AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties, HttpResponseProperties,
    ResponseFlags,
};
use envoy_types::pb::envoy::service::accesslog::v3::StreamAccessLogsMessage;
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, Identifier, LogEntries,
};
use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use envoy_types::pb::google::protobuf::{Duration, Timestamp, UInt32Value};
use prost::Message;

use clairvoy::envoy::{BODY_TAG, ROUTE_TAG};

pub(crate) const LOG_METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";
pub(crate) const REPORT_METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// Entries of one message: some 25 kB, of the 64 kB that an Envoy buffers.
pub(crate) const ENTRIES: usize = 50;
/// Clusters of one report.
pub(crate) const CLUSTERS: usize = 20;
/// Endpoints of a cluster, in two localities.
pub(crate) const ENDPOINTS: usize = 20;
/// Extensions that a real Envoy lists.
pub(crate) const NODE_EXTENSIONS: usize = 1000;

/// Messages of an access log, the first with the node.
pub(crate) fn access_logs(messages: usize) -> Vec<Bytes> {
    let message = |number: usize| {
        let log_entry = (0..ENTRIES).map(|index| entry(number * ENTRIES + index)).collect();
        let identifier = Identifier { node: Some(node()), log_name: "edge".to_owned() };
        frame(&StreamAccessLogsMessage {
            identifier: (number == 0).then_some(identifier),
            log_entries: Some(LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })),
        })
    };
    (0..messages).map(message).collect()
}

/// Load reports, each with the node. The first request is there to ask what to report, and has one, too.
pub(crate) fn load_reports(messages: usize) -> Vec<Bytes> {
    let request =
        frame(&LoadStatsRequest { node: Some(node()), cluster_stats: (0..CLUSTERS).map(cluster).collect() });
    vec![request; messages]
}

fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    // A message of an Envoy is far below 4 GiB.
    frame.put_u32(length as u32);
    frame.extend_from_slice(&message.encode_to_vec());
    frame.freeze()
}

fn node() -> Node {
    let extension = |number: usize| Extension {
        name: format!("envoy.filters.http.extension_{number:04}"),
        category: "envoy.filters.http".to_owned(),
        ..Extension::default()
    };
    Node {
        id: "envoy-a".to_owned(),
        cluster: "edge".to_owned(),
        client_features: vec!["envoy.lrs.supports_send_all_clusters".to_owned()],
        extensions: (0..NODE_EXTENSIONS).map(extension).collect(),
        ..Node::default()
    }
}

fn at(host: usize) -> Option<Address> {
    Some(Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: format!("10.0.{}.{}", host / 250, host % 250),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(8000)),
            ..SocketAddress::default()
        })),
    })
}

fn entry(number: usize) -> HttpAccessLogEntry {
    let now = Utc::now();
    let time = |seconds: i64, nanos: i32| Some(Duration { seconds, nanos });
    let tags = [(BODY_TAG, 200_000 + 100 * (number % 1000)), (ROUTE_TAG, 300 + number % 100)];
    HttpAccessLogEntry {
        common_properties: Some(AccessLogCommon {
            downstream_remote_address: at(number % 5000),
            downstream_local_address: at(1),
            start_time: Some(Timestamp { seconds: now.timestamp() - 3, nanos: 0 }),
            duration: time(3, 0),
            time_to_last_rx_byte: time(0, 900_000),
            time_to_first_upstream_tx_byte: time(0, 1_000_000),
            time_to_last_upstream_tx_byte: time(0, 1_100_000),
            time_to_first_upstream_rx_byte: time(0, 3_000_000),
            time_to_last_upstream_rx_byte: time(2, 990_000_000),
            time_to_first_downstream_tx_byte: time(0, 3_100_000),
            time_to_last_downstream_tx_byte: time(2, 999_000_000),
            upstream_remote_address: at(number % 200),
            upstream_local_address: at(1),
            upstream_cluster: "model-0".to_owned(),
            response_flags: Some(ResponseFlags::default()),
            route_name: "model-0".to_owned(),
            custom_tags: tags.map(|(tag, value)| (tag.to_owned(), value.to_string())).into(),
            access_log_type: AccessLogType::DownstreamEnd.into(),
            ..AccessLogCommon::default()
        }),
        request: Some(HttpRequestProperties {
            scheme: "http".to_owned(),
            authority: "gateway.example:10000".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            user_agent: "openai-python/2.3.0".to_owned(),
            request_id: format!("3f0e8d2c-7a51-4b9d-9c3e-{number:012}"),
            request_headers_bytes: 412,
            request_body_bytes: 2048,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(UInt32Value { value: 200 }),
            response_headers: [("content-type".to_owned(), "text/event-stream; charset=utf-8".to_owned())]
                .into(),
            response_headers_bytes: 180,
            response_body_bytes: 48_213,
            response_code_details: "via_upstream".to_owned(),
            ..HttpResponseProperties::default()
        }),
        ..HttpAccessLogEntry::default()
    }
}

fn cluster(number: usize) -> ClusterStats {
    let endpoint = |index: usize| UpstreamEndpointStats {
        address: at(number * ENDPOINTS + index),
        total_successful_requests: 40,
        total_requests_in_progress: 12,
        total_issued_requests: 41,
        ..UpstreamEndpointStats::default()
    };
    let locality = |half: usize| UpstreamLocalityStats {
        locality: Some(Locality {
            region: "eu-west".to_owned(),
            zone: "a".to_owned(),
            sub_zone: format!("h100-{half}"),
        }),
        total_successful_requests: 400,
        total_requests_in_progress: 120,
        total_issued_requests: 410,
        upstream_endpoint_stats: (0..ENDPOINTS / 2)
            .map(|index| endpoint(half * ENDPOINTS / 2 + index))
            .collect(),
        ..UpstreamLocalityStats::default()
    };
    ClusterStats {
        cluster_name: format!("model-{number}"),
        upstream_locality_stats: vec![locality(0), locality(1)],
        load_report_interval: Some(Duration { seconds: 10, nanos: 0 }),
        ..ClusterStats::default()
    }
}
