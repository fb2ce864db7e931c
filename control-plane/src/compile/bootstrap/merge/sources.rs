use super::report::{Report, show};
use super::{Map, MergeOptions, Serve, Tree};
use crate::compile::bootstrap::parts::{
    Variant, XDS_CLUSTER, XdsAddress, ads, api_source, authorization, load_stats, transport_socket,
    xds_cluster,
};

const ADS: &str = "dynamic_resources.ads_config";
const LOAD_STATS: &str = "cluster_manager.load_stats_config";

/// Where the clusters' endpoints are asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EndpointSource {
    /// The value of `eds_config`.
    pub(super) config: serde_json::Value,
    /// Whether `ads` in this file means Clairvoy.
    pub(super) ads_is_ours: bool,
}

impl EndpointSource {
    /// Whether a config source of the file leads to Clairvoy.
    pub(super) fn is_ours(&self, source: &Tree) -> bool {
        match source.at(&["api_config_source"]) {
            Some(api) => leads_to_clairvoy(api),
            None => self.ads_is_ours && source.at(&["ads"]).is_some(),
        }
    }
}

/// The way to Clairvoy: its cluster, the stream, and what is asked for on it. None after a fault.
pub(super) fn merge(root: &mut Map, options: &MergeOptions, report: &mut Report) -> Option<EndpointSource> {
    cluster(root, options, report)?;
    load_reports(root, options, report);
    let foreign = root
        .get("dynamic_resources")
        .and_then(|tree| tree.at(&["ads_config"]))
        .is_some_and(|config| !leads_to_clairvoy(config));
    if foreign {
        if options.serve != Serve::Eds {
            report.fault(format!(
                "{ADS} leads to another server than Clairvoy, and an Envoy has one ADS server: \
                 use --serve eds, which then asks for endpoints on a stream of its own"
            ));
            return None;
        }
        report.warn(format!(
            "{ADS} leads to another server: endpoints are asked for on a stream of their own (EDS, not ADS)"
        ));
        let variant = options.variant.unwrap_or_default();
        let config = serde_json::json!({
            "api_config_source": api_source(variant, options.token.as_deref()),
            "resource_api_version": "V3",
            "initial_fetch_timeout": "5s",
        });
        return Some(EndpointSource { config, ads_is_ours: false });
    }
    let dynamic = report.child(root, "", "dynamic_resources")?;
    match dynamic.get_mut("ads_config") {
        Some(Tree::Map(config)) => own_stream(config, options, report),
        _ => {
            let config = api_source(options.variant.unwrap_or_default(), options.token.as_deref());
            dynamic.set("ads_config", config.into());
            report.change(format!("{ADS}: added, leads to {XDS_CLUSTER}"));
        }
    }
    let asked: &[&str] = match options.serve {
        Serve::Eds => &[],
        Serve::CdsEds => &["cds_config"],
        Serve::All => &["cds_config", "lds_config"],
    };
    let source = EndpointSource { config: ads(), ads_is_ours: true };
    for field in asked {
        match dynamic.get(field) {
            Some(found) if source.is_ours(found) => {}
            None => {
                dynamic.set(field, ads().into());
                report.change(format!("dynamic_resources.{field}: added, over ADS"));
            }
            Some(_) => {
                let clash = format!("dynamic_resources.{field} leads to another source than Clairvoy");
                if report.may_replace(&clash, "take less from Clairvoy by --serve") {
                    dynamic.set(field, ads().into());
                    report.change(format!("dynamic_resources.{field}: replaced, over ADS"));
                }
            }
        }
    }
    Some(source)
}

/// The stream is there from an earlier merge: only what the options say otherwise is looked at.
fn own_stream(config: &mut Map, options: &MergeOptions, report: &mut Report) {
    if let Some(variant) = options.variant {
        let name = match variant {
            Variant::Delta => "--variant delta",
            Variant::Sotw => "--variant sotw",
        };
        report.settle(config, ADS, "api_type", variant.api_type(), name);
    }
    let Some(token) = &options.token else { return };
    let wanted = Tree::from(api_source(Variant::Delta, Some(token)));
    let metadata = ["grpc_services", "0", "initial_metadata"];
    let found = Tree::Map(config.clone());
    if found.at(&metadata) == wanted.at(&metadata) {
        return;
    }
    let place = format!("{ADS}.grpc_services[0].initial_metadata");
    let clash = format!("{place} holds something else than the token of --token-env");
    if (found.at(&metadata).is_none() || report.may_replace(&clash, "leave --token-env out"))
        && let Some(Tree::List(services)) = config.get_mut("grpc_services")
        && let Some(Tree::Map(service)) = services.first_mut()
    {
        let entry = serde_json::json!([{"key": "authorization", "value": authorization(token)}]);
        service.set("initial_metadata", entry.into());
        report.change(format!("{place}: set to the token"));
    }
}

/// Load reports go to one server: to Clairvoy, unless they go elsewhere already.
fn load_reports(root: &mut Map, options: &MergeOptions, report: &mut Report) -> Option<()> {
    let wanted = Tree::from(load_stats(options.token.as_deref()));
    let clusters =
        root.get("static_resources").and_then(|tree| tree.at(&["clusters"])).and_then(Tree::as_list);
    let counts_endpoints = |cluster: &&Tree| {
        cluster.at(&["track_cluster_stats", "per_endpoint_stats"]) == Some(&Tree::Bool(true))
    };
    if let Some(cluster) = clusters.unwrap_or_default().iter().find(counts_endpoints) {
        let name = cluster.as_map().and_then(|map| map.text("name")).unwrap_or_default();
        report.warn(format!(
            "{name}.track_cluster_stats.per_endpoint_stats is set, beside which Envoy takes no load reports: demand is \
             worked out from the model servers' metrics"
        ));
        return None;
    }
    let manager = report.child(root, "", "cluster_manager")?;
    match manager.get("load_stats_config") {
        None => {
            manager.set("load_stats_config", wanted);
            report.change(format!("{LOAD_STATS}: added, leads to {XDS_CLUSTER}"));
        }
        Some(found) if !leads_to_clairvoy(found) => report.warn(format!(
            "{LOAD_STATS} leads to another server: demand is then worked out from the model servers' metrics"
        )),
        Some(found) => {
            let metadata = ["grpc_services", "0", "initial_metadata"];
            if options.token.is_some() && found.at(&metadata) != wanted.at(&metadata) {
                manager.set("load_stats_config", wanted);
                report.change(format!("{LOAD_STATS}: set to the token"));
            }
        }
    }
    Some(())
}

fn leads_to_clairvoy(source: &Tree) -> bool {
    let services = source.at(&["grpc_services"]).and_then(Tree::as_list).unwrap_or_default();
    services.iter().any(|service| {
        service.at(&["envoy_grpc", "cluster_name"]).and_then(Tree::as_text) == Some(XDS_CLUSTER)
    })
}

/// The static cluster of Clairvoy's discovery server.
fn cluster(root: &mut Map, options: &MergeOptions, report: &mut Report) -> Option<()> {
    let resources = report.child(root, "", "static_resources")?;
    let clusters = report.list(resources, "static_resources", "clusters")?;
    let wanted = options.xds.as_ref().unwrap_or(&options.default_xds);
    let named = |tree: &Tree| tree.as_map().and_then(|map| map.text("name")) == Some(XDS_CLUSTER);
    let Some((index, found)) = clusters.iter_mut().enumerate().find(|(_, tree)| named(tree)) else {
        clusters.push(xds_cluster(wanted, options.tls.as_ref()).into());
        report.change(format!(
            "static_resources.clusters[{}]: added, {XDS_CLUSTER} at {}",
            clusters.len() - 1,
            show_address(wanted)
        ));
        return Some(());
    };
    let place = format!("static_resources.clusters[{index}]");
    let speaks_http2 = ["typed_extension_protocol_options", "http2_protocol_options"]
        .iter()
        .any(|field| found.at(&[field]).is_some());
    if !speaks_http2 {
        report.warn(format!("{place} ({XDS_CLUSTER}) does not ask for HTTP/2, which discovery needs"));
    }
    if let Some(asked) = &options.xds {
        lead_to(found, asked, &place, report);
    }
    if let Some(tls) = &options.tls {
        let host = first_host(found).unwrap_or(&wanted.host).to_owned();
        encrypt(found, Tree::from(transport_socket(&host, tls)), &place, report);
    }
    Some(())
}

/// The address of the cluster that is there from an earlier merge.
fn lead_to(found: &mut Tree, asked: &XdsAddress, place: &str, report: &mut Report) {
    let address = first_address(found);
    if address.as_deref() != Some(show_address(asked).as_str()) {
        let address = address.unwrap_or_else(|| "somewhere else".to_owned());
        let clash =
            format!("{place} ({XDS_CLUSTER}) leads to {address}, and --xds says {}", show_address(asked));
        if report.may_replace(&clash, "leave --xds out") {
            // What the file does for TLS is not lost with the address.
            let socket = found.at(&["transport_socket"]).cloned();
            *found = xds_cluster(asked, None).into();
            if let (Some(socket), Tree::Map(cluster)) = (socket, &mut *found) {
                cluster.set("transport_socket", socket);
            }
            report.change(format!(
                "{place}: replaced, {XDS_CLUSTER} at {}, was {address}",
                show_address(asked)
            ));
        }
    }
}

/// TLS of the cluster that is there from an earlier merge.
fn encrypt(found: &mut Tree, wanted: Tree, place: &str, report: &mut Report) {
    let clash = format!("{place}.transport_socket ({XDS_CLUSTER}) is another one than --tls-ca asks for");
    let was = found.at(&["transport_socket"]);
    if was != Some(&wanted)
        && (was.is_none() || report.may_replace(&clash, "leave --tls-ca out"))
        && let Tree::Map(cluster) = found
    {
        cluster.set("transport_socket", wanted);
        report.change(format!("{place}.transport_socket: set, {XDS_CLUSTER} speaks TLS"));
    }
}

fn socket_of(cluster: &Tree) -> Option<&Map> {
    let path =
        ["load_assignment", "endpoints", "0", "lb_endpoints", "0", "endpoint", "address", "socket_address"];
    cluster.at(&path)?.as_map()
}

fn first_host(cluster: &Tree) -> Option<&str> {
    socket_of(cluster)?.text("address")
}

fn first_address(cluster: &Tree) -> Option<String> {
    let socket = socket_of(cluster)?;
    Some(format!("{}:{}", socket.text("address")?, show(socket.get("port_value")?)))
}

fn show_address(address: &XdsAddress) -> String {
    format!("{}:{}", address.host, address.port)
}
