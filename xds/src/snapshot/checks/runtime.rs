//! Shares of weighted clusters that a runtime layer replaces: the key of a cluster is the
//! `runtime_key_prefix` of its route, a dot, and its name.
//!
//! Proxies take any value for such a key. One that is no whole number they read as 0 or leave out, and a sum
//! of 0 or beyond 32 bits fails every request of the route.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::{WeightedCluster, weighted_cluster};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;

use super::Resources;
use crate::resource_type::ResourceType;
use crate::snapshot::fault::Fault;
use crate::snapshot::weights::{self, names_of};

/// The weighted clusters of a route, in the order in which the route lists them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::snapshot) struct Shares {
    clusters: Vec<Share>,
    /// What a fault calls them.
    name: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Share {
    key: String,
    /// The weight where no layer has the key.
    weight: u32,
}

impl Shares {
    /// The shares of clusters that a runtime layer may replace; `None` where none may.
    pub(in crate::snapshot) fn of(weighted: &WeightedCluster) -> Option<Self> {
        let prefix = &weighted.runtime_key_prefix;
        if prefix.is_empty() {
            return None;
        }
        let share = |cluster: &weighted_cluster::ClusterWeight| Share {
            key: format!("{prefix}.{}", cluster.name),
            weight: cluster.weight.as_ref().map_or(0, |weight| weight.value),
        };
        Some(Self { clusters: weighted.clusters.iter().map(share).collect(), name: names_of(weighted) })
    }
}

/// A value of a runtime layer, as a weight.
#[derive(Debug)]
pub(in crate::snapshot) enum RuntimeValue {
    Weight(u32),
    /// Something else, as text.
    Other(String),
}

/// The keys of a layer. Nested structures give keys with dots.
pub(in crate::snapshot) fn flatten(layer: &Runtime) -> BTreeMap<String, RuntimeValue> {
    let mut keys = BTreeMap::new();
    if let Some(layer) = &layer.layer {
        add_keys("", layer, &mut keys);
    }
    keys
}

fn add_keys(prefix: &str, layer: &Struct, keys: &mut BTreeMap<String, RuntimeValue>) {
    for (name, value) in &layer.fields {
        let key = format!("{prefix}{name}");
        match &value.kind {
            // Envoy takes a structure with these fields for one value, a fraction.
            Some(Kind::StructValue(inner))
                if !inner.fields.contains_key("numerator") && !inner.fields.contains_key("denominator") =>
            {
                add_keys(&format!("{key}."), inner, keys);
            }
            kind => {
                keys.insert(key, runtime_value(kind.as_ref()));
            }
        }
    }
}

fn runtime_value(kind: Option<&Kind>) -> RuntimeValue {
    let other = match kind {
        Some(Kind::NumberValue(number)) => match weight(*number) {
            Some(weight) => return RuntimeValue::Weight(weight),
            None => number.to_string(),
        },
        Some(Kind::StringValue(text)) => format!("{text:?}"),
        Some(Kind::BoolValue(value)) => value.to_string(),
        Some(Kind::StructValue(_)) => "a fraction".to_owned(),
        Some(Kind::ListValue(_)) => "a list".to_owned(),
        Some(Kind::NullValue(_)) | None => "null".to_owned(),
    };
    RuntimeValue::Other(other)
}

/// The number as a weight, if it is a whole one of 32 bits.
fn weight(number: f64) -> Option<u32> {
    let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "was just checked")]
    fits.then_some(number as u32)
}

/// Checks the shares of all routes with each runtime layer of the snapshot.
pub(super) fn check(resources: &Resources) -> Vec<Fault> {
    let mut faults = Vec::new();
    for layer in resources[ResourceType::Runtime].values() {
        for resource_type in [ResourceType::Listener, ResourceType::RouteConfiguration] {
            for resource in resources[resource_type].values() {
                for shares in &resource.own.shares {
                    let sum = match sum(shares, &layer.own.runtime) {
                        Ok(sum) => sum,
                        Err(bad) => {
                            faults.extend(bad.into_iter().map(|(key, value)| Fault::RuntimeWeight {
                                layer: layer.name.to_string(),
                                key: key.to_owned(),
                                value: value.to_owned(),
                            }));
                            continue;
                        }
                    };
                    let of = format!("{} with runtime layer {:?}", shares.name, layer.name);
                    let fault = sum.and_then(|sum| weights::of_sum(resource_type, &resource.name, of, sum));
                    faults.extend(fault);
                }
            }
        }
    }
    faults
}

/// The sum of the shares; `None` if the layer replaces none of them, and the keys and values that are no
/// weights as an error.
fn sum<'a>(
    shares: &'a Shares,
    layer: &'a BTreeMap<String, RuntimeValue>,
) -> Result<Option<u64>, Vec<(&'a str, &'a str)>> {
    let mut sum = 0;
    let mut replaced = false;
    let mut bad = Vec::new();
    for share in &shares.clusters {
        let value = layer.get(&share.key);
        replaced |= value.is_some();
        match value {
            Some(RuntimeValue::Weight(weight)) => sum += u64::from(*weight),
            Some(RuntimeValue::Other(text)) => bad.push((share.key.as_str(), text.as_str())),
            None => sum += u64::from(share.weight),
        }
    }
    if bad.is_empty() { Ok(replaced.then_some(sum)) } else { Err(bad) }
}
