use std::fmt;

use envoy_types::pb::envoy::config::{
    accesslog::v3::{AccessLog, access_log},
    core::v3::{
        ApiVersion, GrpcService, HeaderValue,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
};
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::HcmAccessLogOptions;
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use envoy_types::pb::google::protobuf::{Duration, UInt32Value};
use envoy_types::util::pack_any;

use crate::config::{Span, TokenSource};
use crate::envoy::{BODY_TAG, ROUTE_TAG};

use super::proto::span;

/// Entries wait this long in an Envoy at most; an entry is some 500 bytes.
const FLUSH: Duration = Duration { seconds: 0, nanos: 200_000_000 };
const BUFFER_BYTES: u32 = 64 * 1024;

/// How the requests of a gateway are logged.
#[derive(Clone, Debug)]
pub struct AccessLogIntent {
    /// The static cluster in the Envoys' bootstrap that leads to Clairvoy.
    pub cluster: String,
    /// How often requests that still run are told of.
    pub stream_interval: Span,
    /// What Envoys show when they log; none where nothing is asked for.
    pub token: Option<BearerToken>,
    /// Where entries are to tell tokens; metadata is in every entry.
    pub tokens: Vec<TokenSource>,
}

/// A bearer token. Never printed.
#[derive(Clone)]
pub struct BearerToken(String);

impl BearerToken {
    /// A token of a given text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for BearerToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BearerToken(hidden)")
    }
}

/// The logger of a gateway's listener. Envoy sends entries beside the requests, and drops them when nobody takes them.
pub(super) fn logger(gateway: &str, log: &AccessLogIntent) -> AccessLog {
    let authorization = |token: &BearerToken| HeaderValue {
        key: "authorization".to_owned(),
        value: super::bootstrap::authorization(&token.0),
        ..HeaderValue::default()
    };
    let tag = |name: &str, points: &str| CustomTag {
        tag: name.to_owned(),
        r#type: Some(custom_tag::Type::Value(format!("%COMMON_DURATION({points}:us)%"))),
    };
    // Only of a streamed answer is the first byte a first token.
    let (mut headers, mut trailers) = (vec!["content-type".to_owned()], Vec::new());
    for source in &log.tokens {
        let (names, name) = match source {
            TokenSource::Header(name) => (&mut headers, name.to_ascii_lowercase()),
            TokenSource::Trailer(name) => (&mut trailers, name.to_ascii_lowercase()),
            TokenSource::Metadata(_) => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let config = HttpGrpcAccessLogConfig {
        common_config: Some(CommonGrpcAccessLogConfig {
            log_name: gateway.to_owned(),
            transport_api_version: ApiVersion::V3.into(),
            grpc_service: Some(GrpcService {
                target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                    cluster_name: log.cluster.clone(),
                    ..EnvoyGrpc::default()
                })),
                initial_metadata: log.token.iter().map(authorization).collect(),
                ..GrpcService::default()
            }),
            buffer_flush_interval: Some(FLUSH),
            buffer_size_bytes: Some(UInt32Value { value: BUFFER_BYTES }),
            custom_tags: vec![
                tag(BODY_TAG, "US_TX_BEG:US_RX_BODY_BEG"),
                tag(ROUTE_TAG, "DS_RX_BEG:US_TX_BEG"),
            ],
            ..CommonGrpcAccessLogConfig::default()
        }),
        additional_response_headers_to_log: headers,
        additional_response_trailers_to_log: trailers,
        ..HttpGrpcAccessLogConfig::default()
    };
    AccessLog {
        name: "envoy.access_loggers.http_grpc".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(pack_any(config))),
        ..AccessLog::default()
    }
}

/// When entries are made: at a request's end, and now and then while it runs. An entry at its begin is not asked for: it
/// is made before the filters and knows neither route nor backend, and load reports count requests.
pub(super) fn options(log: &AccessLogIntent) -> HcmAccessLogOptions {
    HcmAccessLogOptions {
        access_log_flush_interval: Some(span(log.stream_interval)),
        ..HcmAccessLogOptions::default()
    }
}
