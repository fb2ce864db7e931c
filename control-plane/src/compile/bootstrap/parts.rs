use std::net::IpAddr;

use serde_json::{Value, json};

use crate::compile::RUNTIME_LAYER;
use crate::compile::policy::ACTIVE_REQUEST_BIAS_KEY;
use crate::decide::ACTIVE_REQUEST_BIAS;

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

/// TLS on the way to the discovery server. The files are those of the Envoy's machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdsTls {
    /// File with the certificates of those who sign the discovery server's.
    pub ca: String,
    /// The name that the discovery server's certificate must have (subject alternative name): a DNS name, an address or
    /// a URI. None: the host that the Envoy connects to.
    pub san: Option<String>,
    /// Files with the certificate that the Envoy shows, and with its key; none: it shows none.
    pub client: Option<(String, String)>,
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

/// The runtime layer that Clairvoy keeps up, from a config source. Envoy starts without it after a while.
pub(super) fn runtime_layer(mut source: Value) -> Value {
    source["initial_fetch_timeout"] = json!("2s");
    json!({"name": RUNTIME_LAYER, "rtds_layer": {"name": RUNTIME_LAYER, "rtds_config": source}})
}

/// The layer in which an operator may set keys by hand; of layers with one key the last wins.
pub(super) fn admin_layer() -> Value {
    json!({"name": "admin", "admin_layer": {}})
}

pub(super) fn xds_cluster(address: &XdsAddress, tls: Option<&XdsTls>) -> Value {
    // A name is resolved anew, so that replicas behind it are found; an address needs no resolver.
    let kind = if address.host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let socket = json!({"address": address.host, "port_value": address.port});
    let mut cluster = json!({
        "name": XDS_CLUSTER,
        "type": kind,
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "1s", "timeout": "1s"}},
                },
            },
        },
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": socket}}}]}],
        },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = transport_socket(&address.host, tls);
    }
    cluster
}

/// TLS to a host: only a certificate with the wanted name is taken, not just any that the CA has signed.
pub(super) fn transport_socket(host: &str, tls: &XdsTls) -> Value {
    let san = tls.san.as_deref().unwrap_or(host);
    let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
    let kind = match san {
        _ if is_address(san) => "IP_ADDRESS",
        _ if san.contains(':') => "URI",
        _ => "DNS",
    };
    let mut common = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": {"filename": tls.ca},
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": san}}],
        },
    });
    if let Some((certificate, key)) = &tls.client {
        common["tls_certificates"] =
            json!([{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}]);
    }
    let mut context = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": common,
    });
    let server_name = if kind == "DNS" { Some(san) } else { Some(host).filter(|host| !is_address(host)) };
    if let Some(name) = server_name {
        context["sni"] = json!(name);
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// The policy of the clusters that Clairvoy compiles: shares of groups by the localities' weights, and inside a group the
/// backend with the fewest active requests.
pub(super) fn load_balancing_policy() -> Value {
    json!({"policies": [{"typed_extension_config": {
        "name": "envoy.load_balancing_policies.least_request",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
            "selection_method": "FULL_SCAN",
            "active_request_bias": {"default_value": ACTIVE_REQUEST_BIAS, "runtime_key": ACTIVE_REQUEST_BIAS_KEY},
            "locality_lb_config": {"locality_weighted_lb_config": {}},
        },
    }}]})
}
