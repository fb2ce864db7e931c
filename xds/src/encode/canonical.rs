//! Gives encoded messages one byte form, by sorting the entries of map fields.
//!
//! The generated types keep map fields in hash maps, which iterate in an order of their own in every
//! process. Since a length does not depend on the order, entries can be sorted within the encoded bytes:
//! all that is needed is which fields are maps, and which lead to messages that hold maps. This is what
//! `map_fields.txt` lists.
//!
//! The list was made once, by a program that is not kept, from the descriptors of the Envoy API. To check it
//! after an update of `envoy-types`, read the `FileDescriptorSet` that the crate ships as
//! `src/generated/types.bin`. A line is right if its fields are those of the message that are maps, or whose
//! type is `google.protobuf.Any` or has a line itself. The set has more messages than the list, among them
//! those of Envoy's admin API: what has no line keeps its order.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

const ANY: &str = "google.protobuf.Any";

/// Deeper messages keep their order. The API itself nests less than half as deep.
const MAX_DEPTH: usize = 100;

static RULES: LazyLock<HashMap<&'static str, Vec<Rule>>> =
    LazyLock::new(|| parse_rules(include_str!("canonical/map_fields.txt")));

/// A field that is a map, or that leads to one.
struct Rule {
    number: u64,
    is_map: bool,
    /// The message type of the field, or of the values of the map.
    message: Option<&'static str>,
}

/// A field in the encoded bytes of a message.
struct Field {
    number: u64,
    /// Tag, length and payload.
    whole: Range<usize>,
    payload: Range<usize>,
    is_message: bool,
}

/// Sorts the entries of all map fields in `bytes`, an encoded message of the type `message`.
///
/// Bytes that cannot be read, and messages of unknown types, stay as they are.
pub(super) fn sort_map_entries(message: &str, bytes: &mut [u8]) {
    sort_message(message, bytes, 0);
}

fn sort_message(message: &str, bytes: &mut [u8], depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    if message == ANY {
        sort_any(bytes, depth);
        return;
    }
    let Some(rules) = RULES.get(message) else { return };
    let Some(fields) = split(bytes) else { return };
    for rule in rules {
        let of_rule = || fields.iter().filter(|field| field.number == rule.number && field.is_message);
        if let Some(inner) = rule.message {
            for field in of_rule() {
                let payload = &mut bytes[field.payload.clone()];
                if rule.is_map {
                    sort_entry_value(inner, payload, depth)
                } else {
                    sort_message(inner, payload, depth + 1)
                }
            }
        }
        if rule.is_map {
            sort_entries(bytes, of_rule());
        }
    }
}

fn sort_any(bytes: &mut [u8], depth: usize) {
    let Some(fields) = split(bytes) else { return };
    let find = |number| fields.iter().rev().find(|field| field.number == number && field.is_message);
    let (Some(type_url), Some(value)) = (find(1), find(2)) else { return };
    let Ok(type_url) = std::str::from_utf8(&bytes[type_url.payload.clone()]) else { return };
    let message = type_url.rsplit('/').next().unwrap_or_default().to_owned();
    sort_message(&message, &mut bytes[value.payload.clone()], depth + 1);
}

fn sort_entry_value(message: &str, entry: &mut [u8], depth: usize) {
    let Some(fields) = split(entry) else { return };
    for value in fields.iter().filter(|field| field.number == 2 && field.is_message) {
        sort_message(message, &mut entry[value.payload.clone()], depth + 1);
    }
}

/// Sorts the entries of one map, each run of adjacent ones by itself.
fn sort_entries<'a>(bytes: &mut [u8], entries: impl Iterator<Item = &'a Field>) {
    let mut runs: Vec<Vec<&Field>> = Vec::new();
    for entry in entries {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.whole.end == entry.whole.start) => {
                run.push(entry)
            }
            _ => runs.push(vec![entry]),
        }
    }
    for mut run in runs.into_iter().filter(|run| run.len() > 1) {
        let start = run[0].whole.start;
        run.sort_by(|a, b| key(&bytes[a.payload.clone()]).cmp(key(&bytes[b.payload.clone()])));
        let sorted: Vec<u8> = run.iter().flat_map(|entry| &bytes[entry.whole.clone()]).copied().collect();
        bytes[start..start + sorted.len()].copy_from_slice(&sorted);
    }
}

fn key(entry: &[u8]) -> &[u8] {
    let fields = split(entry).unwrap_or_default();
    fields.iter().find(|field| field.number == 1).map_or(&[], |field| &entry[field.payload.clone()])
}

/// Splits a message into its fields; `None` for bytes that are no message.
fn split(bytes: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let key = varint(bytes, &mut at)?;
        let (from, length) = match key & 7 {
            0 => {
                let from = at;
                varint(bytes, &mut at)?;
                (from, at - from)
            }
            1 => (at, 8),
            2 => {
                let length = usize::try_from(varint(bytes, &mut at)?).ok()?;
                (at, length)
            }
            5 => (at, 4),
            _ => return None,
        };
        let end = from.checked_add(length).filter(|end| *end <= bytes.len())?;
        fields.push(Field {
            number: key >> 3,
            whole: start..end,
            payload: from..end,
            is_message: key & 7 == 2,
        });
        at = end;
    }
    Some(fields)
}

fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut rest = bytes.get(*at..)?;
    let before = rest.len();
    let value = prost::encoding::decode_varint(&mut rest).ok()?;
    *at += before - rest.len();
    Some(value)
}

/// Reads lines of a message name and its rules: `3:type` for a field of that message type, `3@type` for a
/// map with values of it, `3@` for a map with scalar values.
fn parse_rules(text: &'static str) -> HashMap<&'static str, Vec<Rule>> {
    let mut rules = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(message) = words.next() else { continue };
        let of_message = words.filter_map(|word| {
            let (number, message) = word.split_once([':', '@'])?;
            Some(Rule {
                number: number.parse().ok()?,
                is_map: word.contains('@'),
                message: (!message.is_empty()).then_some(message),
            })
        });
        rules.insert(message, of_message.collect());
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
    use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
    use envoy_types::pb::google::protobuf::{Any, Struct, Value, value::Kind};
    use envoy_types::util::pack_any;
    use prost::{Message, Name};

    use super::*;

    fn number(value: f64) -> Value {
        Value { kind: Some(Kind::NumberValue(value)) }
    }

    fn nested(names: &[&str]) -> Struct {
        let inner: HashMap<_, _> = names.iter().map(|name| ((*name).to_owned(), number(1.0))).collect();
        let inner = Value { kind: Some(Kind::StructValue(Struct { fields: inner })) };
        Struct { fields: names.iter().map(|name| ((*name).to_owned(), inner.clone())).collect() }
    }

    fn cluster() -> Cluster {
        let names = ["delta", "alpha", "", "charlie", "bravo", "a-much-longer-name"];
        let metadata = Metadata {
            filter_metadata: names.iter().map(|name| ((*name).to_owned(), nested(&names))).collect(),
            ..Default::default()
        };
        Cluster {
            name: "c".into(),
            typed_extension_protocol_options: names
                .iter()
                .map(|name| ((*name).to_owned(), pack_any(nested(&names))))
                .collect(),
            upstream_config: Some(TypedExtensionConfig {
                name: "u".into(),
                typed_config: Some(pack_any(metadata.clone())),
            }),
            metadata: Some(metadata),
            ..Default::default()
        }
    }

    #[test]
    fn equal_messages_get_equal_bytes() {
        let canonical = |message: &Cluster| {
            let mut bytes = message.encode_to_vec();
            sort_map_entries(&Cluster::full_name(), &mut bytes);
            bytes
        };
        let first = canonical(&cluster());
        for _ in 0..20 {
            assert_eq!(canonical(&cluster()), first);
        }
        let decoded = Cluster::decode(first.as_slice()).unwrap();
        assert_eq!(decoded.metadata, cluster().metadata);
        assert_eq!(decoded.typed_extension_protocol_options.len(), 6);
    }

    #[test]
    fn the_order_of_lists_stays() {
        let hosts = ["b", "a", "c"].map(|name| VirtualHost { name: name.into(), ..Default::default() });
        let message = RouteConfiguration { virtual_hosts: hosts.to_vec(), ..Default::default() };
        let mut bytes = message.encode_to_vec();
        sort_map_entries(&RouteConfiguration::full_name(), &mut bytes);
        assert_eq!(RouteConfiguration::decode(bytes.as_slice()).unwrap(), message);
    }

    #[test]
    fn unreadable_bytes_stay() {
        let any = Any { type_url: "x/envoy.config.cluster.v3.Cluster".into(), value: vec![0xff; 9] };
        let mut bytes = any.encode_to_vec();
        sort_map_entries(ANY, &mut bytes);
        assert_eq!(bytes, any.encode_to_vec());
    }
}
