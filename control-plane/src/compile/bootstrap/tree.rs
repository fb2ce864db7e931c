use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

/// An Envoy configuration as a tree. Maps keep the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Tree>),
    Map(Map),
}

/// The fields of a message. Envoy takes each under two names, `load_assignment` and `loadAssignment`: whatever is asked
/// for here by the first is found under both. A field without a value is as good as absent, as it is to Envoy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Map(Vec<(String, Tree)>);

impl Map {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Tree)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = (&str, &mut Tree)> {
        self.0.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// True when the key is there, in just this spelling.
    pub(super) fn has_key(&self, key: &str) -> bool {
        self.0.iter().any(|(found, _)| found == key)
    }

    pub(super) fn push(&mut self, key: String, value: Tree) {
        self.0.push((key, value));
    }

    pub(super) fn get(&self, field: &str) -> Option<&Tree> {
        self.0
            .iter()
            .find(|(key, value)| is_named(key, field) && *value != Tree::Null)
            .map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, field: &str) -> Option<&mut Tree> {
        self.0
            .iter_mut()
            .find(|(key, value)| is_named(key, field) && *value != Tree::Null)
            .map(|(_, value)| value)
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.get(field).and_then(Tree::as_text)
    }

    /// Replaces the value where the field is, or adds the field at the end.
    pub(super) fn set(&mut self, field: &str, value: Tree) {
        match self.0.iter_mut().find(|(key, _)| is_named(key, field)) {
            Some((_, place)) => *place = value,
            None => self.0.push((field.to_owned(), value)),
        }
    }

    pub(super) fn remove(&mut self, field: &str) -> Option<Tree> {
        let found = self.get(field).cloned();
        self.0.retain(|(key, _)| !is_named(key, field));
        found
    }
}

/// Whether a key is a field's own name or its lowerCamelCase form.
fn is_named(key: &str, field: &str) -> bool {
    if key == field {
        return true;
    }
    let mut upper = false;
    let camel = field.chars().filter_map(|letter| {
        if letter == '_' {
            upper = true;
            return None;
        }
        let letter = if upper { letter.to_ascii_uppercase() } else { letter };
        upper = false;
        Some(letter)
    });
    key.chars().eq(camel)
}

impl Tree {
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_map(&self) -> Option<&Map> {
        match self {
            Self::Map(map) => Some(map),
            _ => None,
        }
    }

    pub(super) fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(list) => Some(list),
            _ => None,
        }
    }

    /// What a path of fields leads to; a number is an index.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |tree, step| match tree {
            Self::Map(map) => map.get(step),
            Self::List(list) => list.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// What kind of value it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<serde_json::Value> for Tree {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::Text(text),
            Value::Array(list) => Self::List(list.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                Self::Map(Map(map.into_iter().map(|(key, value)| (key, Self::from(value))).collect()))
            }
        }
    }
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(number) => number.serialize(serializer),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => {
                let mut elements = serializer.serialize_seq(Some(list.len()))?;
                for element in list {
                    elements.serialize_element(element)?;
                }
                elements.end()
            }
            Self::Map(map) => {
                let mut entries = serializer.serialize_map(Some(map.0.len()))?;
                for (key, value) in &map.0 {
                    entries.serialize_entry(key, value)?;
                }
                entries.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        Number::from_f64(value).map(Tree::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = elements.next_element()? {
            list.push(element);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        let mut keys = std::collections::BTreeSet::new();
        while let Some((key, value)) = entries.next_entry::<String, Tree>()? {
            if !keys.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("the field {key} is there twice")));
            }
            map.push((key, value));
        }
        Ok(Tree::Map(Map(map)))
    }
}
