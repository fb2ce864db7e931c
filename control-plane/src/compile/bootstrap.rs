mod merge;
mod parts;
mod read;
#[cfg(test)]
mod read_tests;
mod tree;

use std::net::SocketAddr;

use serde_json::{Value, json};

pub use merge::{ClusterChoice, MergeError, MergeOptions, Merged, NodeOptions, Serve, merge};
pub use parts::{Variant, XDS_CLUSTER, XdsAddress, XdsTls};
pub use read::{Format, SyntaxError};

pub(super) use parts::authorization;
use parts::{admin_layer, ads, api_source, load_stats, runtime_layer, xds_cluster};

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
    /// Clairvoy's discovery server.
    pub xds: XdsAddress,
    /// TLS on the way to it; none: clear text.
    pub tls: Option<XdsTls>,
    /// How it is told of changes.
    pub variant: Variant,
    /// Envoy's admin address; none: no admin interface.
    pub admin: Option<SocketAddr>,
    /// Bearer token for the discovery server.
    pub token: Option<String>,
}

/// The bootstrap file of an Envoy that takes everything from Clairvoy by ADS, as a YAML document.
pub fn bootstrap(options: &BootstrapOptions) -> Result<String, serde_saphyr::ser::Error> {
    let document = serde_saphyr::to_string(&document(options))?;
    let kind = match options.variant {
        Variant::Delta => "delta ADS",
        Variant::Sotw => "ADS",
    };
    Ok(format!(
        "# Envoy bootstrap for Clairvoy: start it with `envoy -c FILE`.\n\
         # Listeners, routes, clusters and endpoints come over one {kind} stream. If Clairvoy is away, Envoy goes on with\n\
         # what it has, and within seconds by capacity shares: the runtime layer `clairvoy` runs out.\n{document}"
    ))
}

fn document(options: &BootstrapOptions) -> Value {
    let mut document = json!({
        "node": {
            "id": options.node_id,
            "cluster": options.node_cluster,
            "locality": {"region": options.region, "zone": options.zone},
        },
        "dynamic_resources": {
            "ads_config": api_source(options.variant, options.token.as_deref()),
            "lds_config": ads(),
            "cds_config": ads(),
        },
        "layered_runtime": {"layers": [runtime_layer(ads()), admin_layer()]},
        "cluster_manager": {"load_stats_config": load_stats(options.token.as_deref())},
        "static_resources": {"clusters": [xds_cluster(&options.xds, options.tls.as_ref())]},
    });
    if let Some(admin) = options.admin {
        document["admin"] = admin_interface(admin);
    }
    document
}

fn admin_interface(admin: SocketAddr) -> Value {
    let address = json!({"address": admin.ip().to_string(), "port_value": admin.port()});
    json!({"address": {"socket_address": address}})
}
