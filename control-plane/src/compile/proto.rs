use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress, address,
    config_source::ConfigSourceSpecifier, data_source, socket_address,
};
use envoy_types::pb::google::protobuf::Duration;

use crate::config::Span;

/// How long Envoy waits for a resource at start before it goes on without it.
const INITIAL_FETCH_TIMEOUT_SECONDS: i64 = 5;

pub(super) fn address(address: SocketAddr) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(address.port()))),
            ..SocketAddress::default()
        })),
    }
}

/// "Ask for it on the stream that you have".
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(seconds(INITIAL_FETCH_TIMEOUT_SECONDS)),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

pub(super) fn seconds(seconds: i64) -> Duration {
    Duration { seconds, nanos: 0 }
}

pub(super) fn span(span: Span) -> Duration {
    // A configured span is bounded by humantime's parser far below i64 seconds, and nanoseconds are below 10^9.
    Duration {
        seconds: i64::try_from(span.0.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(span.0.subsec_nanos()).unwrap_or_default(),
    }
}

pub(super) fn inline(text: impl Into<String>) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineString(text.into())), ..DataSource::default() }
}
