use std::net::SocketAddr;

use serde_json::{Value, json};

/// What an Envoy's bootstrap depends on.
#[derive(Clone, Debug)]
pub struct BootstrapOptions {
    /// `node.id`, unique in the fleet.
    pub node_id: String,
    /// `node.cluster`; decides which gateway's listener the Envoy opens.
    pub node_cluster: String,
    /// Region of the Envoy.
    pub region: String,
    /// Zone of the Envoy.
    pub zone: String,
    /// Host and port of Clairvoy's discovery server.
    pub xds_host: String,
    /// Port of Clairvoy's discovery server.
    pub xds_port: u16,
    /// Envoy's admin address; none: no admin interface.
    pub admin: Option<SocketAddr>,
    /// Bearer token for the discovery server.
    pub token: Option<String>,
}

/// The bootstrap file of an Envoy that takes everything from Clairvoy by delta ADS, as a YAML document.
pub fn bootstrap(options: &BootstrapOptions) -> Result<String, serde_saphyr::ser::Error> {
    let document = serde_saphyr::to_string(&document(options))?;
    Ok(format!(
        "# Envoy bootstrap for Clairvoy: start it with `envoy -c FILE`.\n\
         # Listeners, routes, clusters and endpoints come over one delta ADS stream; if Clairvoy is away, Envoy goes on\n\
         # with what it has.\n{document}"
    ))
}

fn document(options: &BootstrapOptions) -> Value {
    let mut grpc_service = json!({
        "envoy_grpc": {
            "cluster_name": "clairvoy_xds",
            "retry_policy": {"retry_back_off": {"base_interval": "0.25s", "max_interval": "2s"}},
        },
    });
    if let Some(token) = &options.token {
        grpc_service["initial_metadata"] =
            json!([{"key": "authorization", "value": format!("Bearer {token}")}]);
    }
    let ads = json!({"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "5s"});
    let mut document = json!({
        "node": {
            "id": options.node_id,
            "cluster": options.node_cluster,
            "locality": {"region": options.region, "zone": options.zone},
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [grpc_service],
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": [xds_cluster(options)]},
    });
    if let Some(admin) = options.admin {
        let address = json!({"address": admin.ip().to_string(), "port_value": admin.port()});
        document["admin"] = json!({"address": {"socket_address": address}});
    }
    document
}

fn xds_cluster(options: &BootstrapOptions) -> Value {
    let address = json!({"address": options.xds_host, "port_value": options.xds_port});
    // A name is resolved anew, so that replicas behind it are found; an address needs no resolver.
    let kind = if options.xds_host.parse::<std::net::IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    json!({
        "name": "clairvoy_xds",
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
            "cluster_name": "clairvoy_xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    })
}
