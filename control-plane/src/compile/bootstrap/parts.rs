use std::net::IpAddr;

use serde_json::{Value, json};

/// Name of the cluster that leads to Clairvoy's discovery server.
pub const XDS_CLUSTER: &str = "clairvoy_xds";

/// Clairvoy's discovery server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// How an Envoy is told of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Variant {
    /// Only what has changed.
    #[default]
    Delta,
    /// All resources of a type each time (state of the world).
    Sotw,
}

impl Variant {
    pub(super) fn api_type(self) -> &'static str {
        match self {
            Self::Delta => "DELTA_GRPC",
            Self::Sotw => "GRPC",
        }
    }
}

/// An API source on Clairvoy: the whole of `ads_config`, or of a config source's `api_config_source`.
pub(super) fn api_source(variant: Variant, token: Option<&str>) -> Value {
    json!({
        "api_type": variant.api_type(),
        "transport_api_version": "V3",
        "set_node_on_first_message_only": true,
        "grpc_services": [grpc_service(token)],
    })
}

/// Load reports to Clairvoy: `cluster_manager.load_stats_config`.
pub(super) fn load_stats(token: Option<&str>) -> Value {
    json!({"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [grpc_service(token)]})
}

fn grpc_service(token: Option<&str>) -> Value {
    let mut service = json!({
        "envoy_grpc": {
            "cluster_name": XDS_CLUSTER,
            "retry_policy": {"retry_back_off": {"base_interval": "0.25s", "max_interval": "2s"}},
        },
    });
    if let Some(token) = token {
        service["initial_metadata"] = json!([{"key": "authorization", "value": authorization(token)}]);
    }
    service
}

pub(in crate::compile) fn authorization(token: &str) -> String {
    format!("Bearer {token}")
}

/// "Ask for it on the stream that you have".
pub(super) fn ads() -> Value {
    json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s"})
}

pub(super) fn xds_cluster(address: &XdsAddress) -> Value {
    // A name is resolved anew, so that replicas behind it are found; an address needs no resolver.
    let kind = if address.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let socket = json!({"address": address.host, "port_value": address.port});
    json!({
        "name": XDS_CLUSTER,
        "type": kind,
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "10s", "timeout": "3s"}},
                },
            },
        },
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": socket}}}]}],
        },
    })
}

/// The policy of the clusters that Clairvoy compiles: shares of groups by the localities' weights, and inside a group the
/// backend with the fewest active requests.
pub(super) fn load_balancing_policy() -> Value {
    json!({"policies": [{"typed_extension_config": {
        "name": "envoy.load_balancing_policies.least_request",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
            "selection_method": "FULL_SCAN",
            "locality_lb_config": {"locality_weighted_lb_config": {}},
        },
    }}]})
}
