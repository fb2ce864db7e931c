use std::collections::BTreeSet;

use super::clusters::name;
use super::report::Report;
use super::{Map, Tree};

/// Lets static routes name clusters that come later. Envoy looks for the clusters of a static route configuration when it
/// starts, before discovery, and does not start where one is missing, unless `validate_clusters` is false.
pub(super) fn merge(root: &mut Map, report: &mut Report) {
    let resources = root.get("static_resources");
    let clusters = resources.and_then(|resources| resources.at(&["clusters"])).and_then(Tree::as_list);
    let known: BTreeSet<String> =
        clusters.unwrap_or_default().iter().filter_map(name).map(str::to_owned).collect();
    if let Some(Tree::Map(resources)) = root.get_mut("static_resources")
        && let Some(listeners) = resources.get_mut("listeners")
    {
        visit(listeners, "static_resources.listeners", &known, report);
    }
}

/// Looks for route configurations in a part of a listener; they are in the typed configuration of its filters.
fn visit(tree: &mut Tree, place: &str, known: &BTreeSet<String>, report: &mut Report) {
    match tree {
        Tree::List(list) => {
            for (index, element) in list.iter_mut().enumerate() {
                visit(element, &format!("{place}[{index}]"), known, report);
            }
        }
        Tree::Map(map) => {
            if let Some(Tree::Map(routes)) = map.get_mut("route_config") {
                let mut named = BTreeSet::new();
                routes.iter().for_each(|(_, value)| clusters_of(value, &mut named));
                let missing: Vec<&str> =
                    named.iter().filter(|name| !known.contains(*name)).map(String::as_str).collect();
                if !missing.is_empty() {
                    allow(routes, &format!("{place}.route_config"), &missing.join(", "), report);
                }
                return;
            }
            for (key, value) in map.values_mut() {
                let place = format!("{place}.{key}");
                visit(value, &place, known, report);
            }
        }
        _ => {}
    }
}

fn allow(routes: &mut Map, place: &str, missing: &str, report: &mut Report) {
    let place = format!("{place}.validate_clusters");
    match routes.get("validate_clusters") {
        Some(Tree::Bool(false)) => {}
        None => {
            routes.set("validate_clusters", Tree::Bool(false));
            report.change(format!("{place}: set to false, as its clusters come by discovery ({missing})"));
        }
        Some(_) => {
            let clash =
                format!("{place} is true, and these clusters would come by discovery only: {missing}");
            if report.may_replace(&clash, "set it to false") {
                routes.set("validate_clusters", Tree::Bool(false));
                report.change(format!("{place}: set to false, was true"));
            }
        }
    }
}

/// The clusters that routes name: `route.cluster`, weighted ones, and mirrors.
fn clusters_of(tree: &Tree, found: &mut BTreeSet<String>) {
    match tree {
        Tree::List(list) => list.iter().for_each(|element| clusters_of(element, found)),
        Tree::Map(map) => {
            if let Some(Tree::Map(route)) = map.get("route") {
                found.extend(route.text("cluster").map(str::to_owned));
                let weighted = route.get("weighted_clusters").and_then(|tree| tree.at(&["clusters"]));
                let mirrors = route.get("request_mirror_policies");
                for element in weighted.and_then(Tree::as_list).into_iter().flatten() {
                    found.extend(name(element).map(str::to_owned));
                }
                for mirror in mirrors.and_then(Tree::as_list).into_iter().flatten() {
                    found.extend(mirror.at(&["cluster"]).and_then(Tree::as_text).map(str::to_owned));
                }
            }
            map.iter().for_each(|(_, value)| clusters_of(value, found));
        }
        _ => {}
    }
}
