//! Finds the messages within an encoded resource that name other resources, within packed `Any`s too.
//!
//! Only the fields that lead to such a message are read. `fields.txt` lists them: a line is a message, then
//! `3:type` for a field of that message type and `3=cluster` for a string that names a cluster.
//!
//! The list was made once, by a program that is not kept, from the descriptors of the Envoy API, which
//! `envoy-types` ships as `src/generated/types.bin`. To check it after an update: string fields with
//! `cluster` in their name are in it if their value is the name of a cluster that must exist; so are the
//! messages that [`sites`](super::sites) looks at, and, in `envoy.config`, `envoy.extensions` and `xds`,
//! every field whose type is `google.protobuf.Any` or has a line.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::encoding::{self, DecodeContext, WireType};

const ANY: &str = "google.protobuf.Any";
const ANY_TYPE_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

/// Deeper messages are not read. Proxies refuse them as well.
const MAX_DEPTH: usize = 100;

static RULES: LazyLock<HashMap<&'static str, Vec<Rule>>> =
    LazyLock::new(|| parse_rules(include_str!("fields.txt")));

struct Rule {
    number: u32,
    leads_to: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Cluster,
    Message(&'static str),
}

/// Is told what a walk finds.
pub(super) trait Visitor {
    /// The name of a cluster, not empty.
    fn cluster(&mut self, name: &str);

    /// A message of a listed type, which is a field of a message of the type `within`. What is inside it
    /// follows.
    fn message(&mut self, within: &str, message: &str, bytes: &[u8]);

    /// A packed message that cannot be read.
    fn unreadable(&mut self, type_url: &str, reason: String);
}

/// Walks through `bytes`, an encoded message of the type `message`.
pub(super) fn walk(message: &str, bytes: &[u8], visitor: &mut impl Visitor) {
    if let Err(reason) = walk_message(message, bytes, 0, visitor) {
        visitor.unreadable(message, reason);
    }
}

fn walk_message(message: &str, bytes: &[u8], depth: usize, visitor: &mut impl Visitor) -> Result<(), String> {
    let Some(rules) = RULES.get(message) else { return Ok(()) };
    if depth > MAX_DEPTH {
        return Err(format!("nested more than {MAX_DEPTH} deep"));
    }
    for field in Fields(bytes) {
        let (number, payload) = field?;
        let Some(rule) = rules.iter().find(|rule| rule.number == number) else { continue };
        let Some(payload) = payload else { return Err(format!("{message}: wrong type of field {number}")) };
        match rule.leads_to {
            Target::Cluster => {
                let name = std::str::from_utf8(payload)
                    .map_err(|error| format!("{message}: field {number}: {error}"))?;
                if !name.is_empty() {
                    visitor.cluster(name);
                }
            }
            Target::Message(ANY) => walk_any(message, payload, depth + 1, visitor)?,
            Target::Message(inner) => {
                visitor.message(message, inner, payload);
                walk_message(inner, payload, depth + 1, visitor)?;
            }
        }
    }
    Ok(())
}

fn walk_any(within: &str, bytes: &[u8], depth: usize, visitor: &mut impl Visitor) -> Result<(), String> {
    let (mut type_url, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(bytes) {
        match field? {
            (ANY_TYPE_URL, Some(payload)) => type_url = payload,
            (ANY_VALUE, Some(payload)) => value = payload,
            _ => {}
        }
    }
    let type_url = std::str::from_utf8(type_url).map_err(|error| format!("type URL in {within}: {error}"))?;
    let message = type_url.rsplit('/').next().unwrap_or_default();
    if RULES.contains_key(message) {
        visitor.message(within, message, value);
        if let Err(reason) = walk_message(message, value, depth, visitor) {
            visitor.unreadable(type_url, reason);
        }
    }
    Ok(())
}

/// The fields of a message, with the payload of those that have a length.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u32, Option<&'a [u8]>), String> {
        let (number, wire_type) = encoding::decode_key(&mut self.0).map_err(|error| error.to_string())?;
        if wire_type != WireType::LengthDelimited {
            encoding::skip_field(wire_type, number, &mut self.0, DecodeContext::default())
                .map_err(|error| error.to_string())?;
            return Ok((number, None));
        }
        let length = encoding::decode_varint(&mut self.0).map_err(|error| error.to_string())?;
        let payload = usize::try_from(length).ok().and_then(|length| self.0.split_at_checked(length));
        let Some((payload, rest)) = payload else {
            return Err(format!("field {number} ends after the message"));
        };
        self.0 = rest;
        Ok((number, Some(payload)))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Option<&'a [u8]>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn parse_rules(text: &'static str) -> HashMap<&'static str, Vec<Rule>> {
    let rule = |word: &'static str| {
        let (number, leads_to) = match word.split_once(':') {
            Some((number, message)) => (number, Target::Message(message)),
            None => (word.strip_suffix("=cluster")?, Target::Cluster),
        };
        Some(Rule { number: number.parse().ok()?, leads_to })
    };
    let mut rules = HashMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(message) = words.next() else { continue };
        rules.insert(message, words.filter_map(rule).collect());
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_list_is_understood() {
        for line in include_str!("fields.txt").lines() {
            let (message, words) = line.split_once(' ').unwrap_or((line, ""));
            assert_eq!(RULES[message].len(), words.split_whitespace().count(), "{line}");
        }
        let targets = RULES.values().flatten().filter_map(|rule| match rule.leads_to {
            Target::Message(message) => Some(message),
            Target::Cluster => None,
        });
        for target in targets.filter(|target| *target != ANY) {
            assert!(RULES.contains_key(target), "{target}");
        }
    }
}
