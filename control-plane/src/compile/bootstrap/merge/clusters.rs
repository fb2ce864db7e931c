use std::collections::BTreeSet;

use super::report::{Report, join, show};
use super::sources::EndpointSource;
use super::{Map, MergeOptions, Serve, Tree, policy};
use crate::compile::bootstrap::parts::XDS_CLUSTER;

/// Names that a message lists at most.
const LISTED: usize = 20;
const CLUSTERS: &str = "static_resources.clusters";

/// Cluster extensions that give nothing but endpoints; the others (aggregates, proxies of whatever is asked for) are not
/// lists of backends.
const LISTS_OF_BACKENDS: [&str; 6] = [
    "envoy.cluster.static",
    "envoy.cluster.strict_dns",
    "envoy.cluster.logical_dns",
    "envoy.cluster.dns",
    "envoy.clusters.dns",
    "envoy.cluster.eds",
];

/// Turns the chosen clusters of the file into ones that take their endpoints from Clairvoy.
pub(super) fn merge(root: &mut Map, options: &MergeOptions, source: EndpointSource, report: &mut Report) {
    let Some(resources) = report.child(root, "", "static_resources") else { return };
    let Some(clusters) = report.list(resources, "static_resources", "clusters") else { return };
    let names: Vec<String> =
        clusters.iter().map(|cluster| name(cluster).unwrap_or_default().to_owned()).collect();
    let own = names.iter().map(String::as_str).filter(|name| *name != XDS_CLUSTER);
    for choice in &options.clusters {
        let count = names.iter().filter(|name| **name == choice.name).count();
        if choice.name == XDS_CLUSTER {
            report.fault(format!("--cluster {XDS_CLUSTER}: that cluster leads to Clairvoy itself"));
        } else if count != 1 {
            let there = list(own.clone());
            report.fault(format!(
                "--cluster {}: {count} of {CLUSTERS} have that name; there are {there}",
                choice.name
            ));
        }
    }
    let mut any = false;
    for (index, cluster) in clusters.iter_mut().enumerate() {
        let place = format!("{CLUSTERS}[{index}]");
        let Tree::Map(cluster) = cluster else {
            report.fault(format!("{place} is {}, and has to be a map", cluster.kind()));
            continue;
        };
        let Some(name) = cluster.text("name").map(str::to_owned) else { continue };
        let chosen = options.clusters.iter().find(|choice| choice.name == name);
        let is_ours = eds_config(cluster).is_some_and(|config| source.is_ours(config));
        any |= is_ours;
        if name == XDS_CLUSTER {
            continue;
        }
        let place = format!("{place} ({name})");
        let by_itself = options.serve == Serve::Eds
            && options.clusters.is_empty()
            && !is_ours
            && (is_model(&name, options) || (kind(cluster) == "EDS" && eds_config(cluster).is_none()));
        if chosen.is_some() || by_itself {
            any = true;
            let model = chosen.and_then(|choice| choice.model.as_deref());
            Turn { cluster, name: &name, place: &place, model, source: &source, options }.run(report);
        } else if options.serve != Serve::Eds && is_model(&name, options) {
            report.warn(format!(
                "{place}: has the name of a model: Envoy keeps this cluster and leaves out Clairvoy's; \
                 rename it, or give it Clairvoy's endpoints by --cluster {name}"
            ));
        }
    }
    if options.serve == Serve::Eds && !any && options.clusters.is_empty() {
        let why = match &options.models {
            Some(models) => format!("has the name of a model ({})", list(models.iter().map(String::as_str))),
            None => "is of type EDS without an eds_config".to_owned(),
        };
        report.fault(format!(
            "{CLUSTERS}: none {why}: say which take the endpoints of which model by --cluster NAME=MODEL; there are {}",
            list(own)
        ));
    }
}

struct Turn<'a> {
    cluster: &'a mut Map,
    name: &'a str,
    place: &'a str,
    model: Option<&'a str>,
    source: &'a EndpointSource,
    options: &'a MergeOptions,
}

impl Turn<'_> {
    fn run(self, report: &mut Report) {
        let Self { cluster, name, place, model, source, options } = self;
        let kind = kind(cluster);
        if !["STATIC", "STRICT_DNS", "LOGICAL_DNS", "EDS"].contains(&kind.as_str()) {
            report.fault(format!(
                "{place} is of type {kind}, which is no list of backends: choose other clusters by --cluster"
            ));
            return;
        }
        if matches_by_metadata(cluster) {
            report.warn(format!(
                "{place}: endpoints come without metadata, so no transport_socket_matches applies"
            ));
        }
        if kind != "EDS" || cluster.get("cluster_type").is_some() {
            cluster.remove("cluster_type");
            cluster.set("type", "EDS".into());
            report.change(format!("{place}.type: EDS, was {kind}"));
        }
        if let Some(assignment) = cluster.remove("load_assignment") {
            forget(&assignment, &join(place, "load_assignment"), report);
        }
        let Some(eds) = report.child(cluster, place, "eds_cluster_config") else { return };
        let eds_place = join(place, "eds_cluster_config");
        let served = eds.text("service_name").filter(|text| !text.is_empty()).map(str::to_owned);
        if let Some(model) = model
            && (model != name || served.is_some())
        {
            report.settle(eds, &eds_place, "service_name", model, "--cluster");
        }
        let model = model.or(served.as_deref()).unwrap_or(name);
        if let Some(models) = &options.models
            && !models.contains(model)
        {
            let known = list(models.iter().map(String::as_str));
            report.fault(format!(
                "{place}: the configuration has no model {model:?}: name one by --cluster {name}=MODEL ({known})"
            ));
        }
        match eds.get("eds_config") {
            Some(found) if source.is_ours(found) => {}
            None => {
                eds.set("eds_config", source.config.clone().into());
                report.change(format!("{eds_place}: added, the endpoints of model {model:?}"));
            }
            Some(_) => {
                let clash = format!("{eds_place}.eds_config leads to another source than Clairvoy");
                if report.may_replace(&clash, "choose other clusters by --cluster") {
                    eds.set("eds_config", source.config.clone().into());
                    report.change(format!(
                        "{eds_place}.eds_config: replaced, the endpoints of model {model:?}"
                    ));
                }
            }
        }
        if options.keep_lb {
            policy::keep(cluster, place, report);
        } else {
            policy::replace(cluster, place, report);
        }
    }
}

/// Tells what goes with the endpoints of the file.
fn forget(assignment: &Tree, place: &str, report: &mut Report) {
    let mut hosts = BTreeSet::new();
    let mut lost = BTreeSet::new();
    let mut count = 0_usize;
    let localities = assignment.at(&["endpoints"]).and_then(Tree::as_list).unwrap_or_default();
    for locality in localities {
        if locality.at(&["priority"]).is_some_and(|priority| show(priority) != "0") {
            lost.insert("priority");
        }
        for endpoint in locality.at(&["lb_endpoints"]).and_then(Tree::as_list).unwrap_or_default() {
            count += 1;
            for (path, what) in [
                (&["metadata"][..], "metadata"),
                (&["load_balancing_weight"][..], "load_balancing_weight"),
                (&["endpoint", "hostname"][..], "hostname"),
                (&["endpoint", "health_check_config"][..], "health_check_config"),
            ] {
                if endpoint.at(path).is_some() {
                    lost.insert(what);
                }
            }
            let address =
                endpoint.at(&["endpoint", "address", "socket_address", "address"]).and_then(Tree::as_text);
            if let Some(address) = address
                && address.parse::<std::net::IpAddr>().is_err()
            {
                hosts.insert(address);
            }
        }
    }
    report.change(format!("{place}: removed, {count} endpoints"));
    if !hosts.is_empty() {
        report.warn(format!(
            "{place} named hosts ({}): Clairvoy knows backends by address (ip:port) only; list those in its pools",
            list(hosts.into_iter())
        ));
    }
    if !lost.is_empty() {
        report
            .warn(format!("{place} held {}, which Clairvoy's endpoints do not have", list(lost.into_iter())));
    }
}

/// The discovery type, by the name of its enum value; of an extension, its name unless it is as good as one.
fn kind(cluster: &Map) -> String {
    if let Some(extension) = cluster.get("cluster_type") {
        let name = extension.at(&["name"]).and_then(Tree::as_text).unwrap_or("unknown");
        return match name {
            "envoy.cluster.eds" => "EDS".to_owned(),
            name if LISTS_OF_BACKENDS.contains(&name) => "STRICT_DNS".to_owned(),
            name => name.to_owned(),
        };
    }
    match cluster.get("type") {
        None => "STATIC".to_owned(),
        Some(Tree::Text(text)) => text.clone(),
        Some(other) => match show(other).as_str() {
            "0" => "STATIC".to_owned(),
            "1" => "STRICT_DNS".to_owned(),
            "2" => "LOGICAL_DNS".to_owned(),
            "3" => "EDS".to_owned(),
            "4" => "ORIGINAL_DST".to_owned(),
            other => other.to_owned(),
        },
    }
}

fn matches_by_metadata(cluster: &Map) -> bool {
    cluster.get("transport_socket_matches").and_then(Tree::as_list).is_some_and(|matches| !matches.is_empty())
}

fn eds_config(cluster: &Map) -> Option<&Tree> {
    cluster.get("eds_cluster_config")?.at(&["eds_config"])
}

fn is_model(name: &str, options: &MergeOptions) -> bool {
    options.models.as_ref().is_some_and(|models| models.contains(name))
}

pub(super) fn name(cluster: &Tree) -> Option<&str> {
    cluster.as_map()?.text("name")
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    let mut text = names[..names.len().min(LISTED)].join(", ");
    if names.len() > LISTED {
        text += &format!(" and {} more", names.len() - LISTED);
    }
    text
}
