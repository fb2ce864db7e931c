use super::report::{Report, join, show};
use super::{Map, Tree};
use crate::compile::bootstrap::parts::load_balancing_policy;

/// What Envoy does not take beside a `load_balancing_policy`, or does not look at then.
const OLD_FIELDS: [&str; 7] = [
    "lb_policy",
    "lb_subset_config",
    "round_robin_lb_config",
    "least_request_lb_config",
    "ring_hash_lb_config",
    "maglev_lb_config",
    "original_dst_lb_config",
];
const OLD_COMMON_FIELDS: [&str; 3] =
    ["zone_aware_lb_config", "locality_weighted_lb_config", "consistent_hashing_lb_config"];

/// Gives a cluster the policy of the clusters that Clairvoy compiles; without one that looks at the weights of localities,
/// Clairvoy's shares have no effect.
pub(super) fn replace(cluster: &mut Map, place: &str, report: &mut Report) {
    let wanted = Tree::from(load_balancing_policy());
    if cluster.get("load_balancing_policy") == Some(&wanted) {
        return;
    }
    let old = Policy::of(cluster);
    let mut removed: Vec<&str> = Vec::new();
    for field in OLD_FIELDS {
        if cluster.remove(field).is_some() {
            removed.push(field);
        }
    }
    if let Some(Tree::Map(common)) = cluster.get_mut("common_lb_config") {
        for field in OLD_COMMON_FIELDS {
            if common.remove(field).is_some() {
                removed.push(field);
            }
        }
    }
    cluster.set("load_balancing_policy", wanted);
    let removed =
        if removed.is_empty() { String::new() } else { format!(" (removed: {})", removed.join(", ")) };
    report.change(format!(
        "{}: least request with the weights of localities, was {}{removed}; --keep-lb leaves it",
        join(place, "load_balancing_policy"),
        old.name
    ));
    if old.is_sticky {
        report.warn(format!(
            "{place}: the policy was {}: requests are no longer kept on one backend by it; \
             --keep-lb keeps them there, and then Clairvoy's shares move keys between backends",
            old.name
        ));
    }
}

/// Leaves the policy, and tells when Clairvoy's shares have no effect under it.
pub(super) fn keep(cluster: &Map, place: &str, report: &mut Report) {
    let policy = Policy::of(cluster);
    if policy.name == "CLUSTER_PROVIDED" {
        report.fault(format!(
            "{place}.lb_policy is CLUSTER_PROVIDED, which a cluster of type EDS cannot have: leave --keep-lb out"
        ));
    } else if !policy.knows_locality_weights {
        report.warn(format!(
            "{place}: its policy ({}) does not look at the weights of localities, so Clairvoy's shares have no effect, \
             only who is there and who drains; set common_lb_config.locality_weighted_lb_config, or leave --keep-lb out",
            policy.name
        ));
    }
}

struct Policy {
    name: String,
    /// A request's key decides about the backend.
    is_sticky: bool,
    knows_locality_weights: bool,
}

impl Policy {
    fn of(cluster: &Map) -> Self {
        if let Some(policy) = cluster.get("load_balancing_policy") {
            let types = policy_types(policy);
            let any = |words: &[&str]| types.iter().any(|name| words.contains(&name.as_str()));
            return Self {
                is_sticky: any(&["RingHash", "Maglev", "Subset", "OverrideHost"]),
                knows_locality_weights: any(&["WrrLocality"]) || holds(policy, "locality_weighted_lb_config"),
                name: if types.is_empty() { "of an unknown kind".to_owned() } else { types.join(", ") },
            };
        }
        let name = match cluster.get("lb_policy").map(show).as_deref() {
            None | Some("0") => "ROUND_ROBIN".to_owned(),
            Some("1") => "LEAST_REQUEST".to_owned(),
            Some("2") => "RING_HASH".to_owned(),
            Some("3") => "RANDOM".to_owned(),
            Some("5") => "MAGLEV".to_owned(),
            Some("6") => "CLUSTER_PROVIDED".to_owned(),
            Some(other) => other.trim_matches('"').to_owned(),
        };
        let subset = cluster.get("lb_subset_config").is_some();
        let common = cluster.get("common_lb_config");
        Self {
            is_sticky: subset || ["RING_HASH", "MAGLEV"].contains(&name.as_str()),
            knows_locality_weights: common.is_some_and(|common| holds(common, "locality_weighted_lb_config")),
            name: if subset { format!("{name} in subsets") } else { name },
        }
    }
}

/// The message names of a `load_balancing_policy`'s policies.
fn policy_types(policy: &Tree) -> Vec<String> {
    let policies = policy.at(&["policies"]).and_then(Tree::as_list).unwrap_or_default();
    policies
        .iter()
        .filter_map(|policy| policy.at(&["typed_extension_config", "typed_config", "@type"])?.as_text())
        .filter_map(|url| url.rsplit('.').next().map(str::to_owned))
        .collect()
}

/// Whether a field is set anywhere below.
fn holds(tree: &Tree, field: &str) -> bool {
    match tree {
        Tree::Map(map) => map.get(field).is_some() || map.iter().any(|(_, value)| holds(value, field)),
        Tree::List(list) => list.iter().any(|value| holds(value, field)),
        _ => false,
    }
}
