//! Writes `src/encode/canonical/map_fields.txt`: the fields of the Envoy API that are maps, or lead to one.
//!
//! `cargo run --example map_fields -- DESCRIPTORS > xds/src/encode/canonical/map_fields.txt`, where
//! DESCRIPTORS is a file with a `FileDescriptorSet`, such as `src/generated/types.bin` in the sources of the
//! crate `envoy-types`. To be run again when that crate is updated.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use envoy_types::pb::google::protobuf::field_descriptor_proto::Type;
use envoy_types::pb::google::protobuf::{DescriptorProto, FileDescriptorSet};
use prost::Message;

/// What a resource can hold, itself or packed into an `Any`.
const ROOTS: [&str; 3] = ["envoy.config.", "envoy.extensions.", "xds."];
const BOOTSTRAP: &str = ".bootstrap.";
const ANY: &str = "google.protobuf.Any";

#[derive(Debug)]
struct Fields {
    is_map_entry: bool,
    /// Fields with a message type: number and type.
    messages: Vec<(i32, String)>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a descriptor set is missing")?;
    let descriptors = FileDescriptorSet::decode(std::fs::read(path)?.as_slice())?;
    let mut types = BTreeMap::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            collect(file.package(), message, &mut types);
        }
    }
    let relevant = leading_to_maps(&types);
    let reachable = reachable(&types);
    for name in relevant.intersection(&reachable) {
        let fields = &types[name];
        if fields.is_map_entry || name == ANY {
            continue;
        }
        let rules = fields.messages.iter().filter(|(_, of)| relevant.contains(of)).map(|(number, of)| {
            if !types[of].is_map_entry {
                return format!(" {number}:{of}");
            }
            let value = types[of].messages.iter().find(|(number, _)| *number == 2);
            let value = value.map(|(_, of)| of.as_str()).filter(|of| relevant.contains(*of));
            format!(" {number}@{}", value.unwrap_or_default())
        });
        println!("{name}{}", rules.collect::<String>());
    }
    Ok(())
}

fn collect(scope: &str, message: &DescriptorProto, types: &mut BTreeMap<String, Fields>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, types);
    }
    let of_message_type = message.field.iter().filter(|field| field.r#type() == Type::Message);
    let mut messages: Vec<_> = of_message_type
        .map(|field| (field.number(), field.type_name().trim_start_matches('.').to_owned()))
        .collect();
    messages.sort();
    let is_map_entry = message.options.as_ref().is_some_and(|options| options.map_entry());
    types.insert(name, Fields { is_map_entry, messages });
}

/// Map entries, `Any`, and every type with a field that leads to one of these.
fn leading_to_maps(types: &BTreeMap<String, Fields>) -> BTreeSet<String> {
    let maps = types.iter().filter(|(_, fields)| fields.is_map_entry).map(|(name, _)| name.clone());
    let mut found: BTreeSet<String> = maps.chain([ANY.to_owned()]).collect();
    loop {
        let more: Vec<_> = types
            .iter()
            .filter(|(name, _)| !found.contains(*name))
            .filter(|(_, fields)| fields.messages.iter().any(|(_, of)| found.contains(of)))
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

fn reachable(types: &BTreeMap<String, Fields>) -> BTreeSet<String> {
    let is_root = |name: &str| ROOTS.iter().any(|root| name.starts_with(root)) && !name.contains(BOOTSTRAP);
    let mut open: Vec<&str> = types.keys().map(String::as_str).filter(|name| is_root(name)).collect();
    let mut found = BTreeSet::new();
    while let Some(name) = open.pop() {
        if let Some(fields) = types.get(name)
            && found.insert(name.to_owned())
        {
            open.extend(fields.messages.iter().map(|(_, of)| of.as_str()));
        }
    }
    found
}
