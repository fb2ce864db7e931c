//! Reads YAML as Envoy does, so that what is written again means the same to it.
//!
//! Envoy knows fewer kinds of plain scalars than YAML 1.2, and more spellings of each: `yes` is true, `010` is eight, and
//! `1.10` is a text that only becomes a number in a field that wants one (in `node.metadata` it stays a text).
//! Whatever is quoted is a text. Source: Envoy's `ValueUtil::loadFromYaml`, on yaml-cpp.

use serde_json::Number;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Tag};
use thiserror::Error;

use super::tree::{Map, Tree};

/// Values of a file with its aliases followed; a large one of 16 MiB has fewer.
const MAX_VALUES: usize = 1_000_000;
/// Envoy itself refuses messages that are nested deeper.
const MAX_DEPTH: usize = 100;

/// The two forms of a bootstrap file that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML.
    Yaml,
    /// JSON; Envoy takes a file for it when its name ends in `.json`.
    Json,
}

/// Why a file could not be read as a tree.
#[derive(Debug, Error)]
pub enum SyntaxError {
    /// Not well-formed.
    #[error("not valid YAML: {0}")]
    Yaml(String),
    /// Not well-formed.
    #[error("not valid JSON: {0}")]
    Json(serde_json::Error),
    /// A construct that Envoy does not take, or that could not be written again with the same meaning.
    #[error("line {line}: {what}")]
    Unsupported {
        /// Where, from 1.
        line: usize,
        /// What.
        what: String,
    },
}

pub(super) fn read(text: &str, format: Format) -> Result<Tree, SyntaxError> {
    match format {
        Format::Json => serde_json::from_str(text).map_err(SyntaxError::Json),
        Format::Yaml => Builder::default().read(text),
    }
}

/// A list or a map that is being read.
struct Open {
    tree: Tree,
    /// The key that waits for its value; `None` inside: an entry that is left out.
    key: Option<Option<String>>,
    anchor: usize,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: Vec<(usize, Tree)>,
    values: usize,
    root: Option<Tree>,
    documents: usize,
}

impl Builder {
    fn read(mut self, text: &str) -> Result<Tree, SyntaxError> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| SyntaxError::Yaml(error.to_string()))?;
            self.event(event).map_err(|what| SyntaxError::Unsupported { line: span.start.line(), what })?;
        }
        Ok(self.root.unwrap_or(Tree::Null))
    }

    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document begins: Envoy reads only the first".to_owned());
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_key = self.wants_key();
                let quoted = match tag.as_deref().map(Tag::original).as_deref() {
                    None => style != ScalarStyle::Plain,
                    Some("!") => true,
                    Some("!ignore") if is_key => {
                        self.begin_entry(None)?;
                        return Ok(());
                    }
                    Some(other) => return Err(unsupported_tag(other)),
                };
                if is_key {
                    if !quoted && text == "<<" {
                        return Err("a merge key (`<<`), which Envoy does not take".to_owned());
                    }
                    return self.begin_entry(Some(text.into_owned()));
                }
                let value = if quoted { Tree::Text(text.into_owned()) } else { plain(&text) };
                self.value(value, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.begin(Tree::List(Vec::new()), anchor, tag.as_deref())?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.begin(Tree::Map(Map::default()), anchor, tag.as_deref())?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.value(open.tree, open.anchor)?;
                }
            }
            Event::Alias(id) => {
                let value = self.anchors.iter().rev().find(|(anchor, _)| *anchor == id);
                let value = value.map(|(_, tree)| tree.clone());
                let value = value.ok_or("an alias inside of its own anchor, or without one")?;
                self.values += size(&value);
                self.bounded()?;
                if self.open.len() + depth(&value) > MAX_DEPTH {
                    return Err(format!("nested deeper than {MAX_DEPTH} levels"));
                }
                if self.wants_key() {
                    let key = value.as_text().ok_or("an alias of something that is no text, as a key")?;
                    return self.begin_entry(Some(key.to_owned()));
                }
                self.value(value, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| matches!(open.tree, Tree::Map(_)) && open.key.is_none())
    }

    fn begin_entry(&mut self, key: Option<String>) -> Result<(), String> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        if let (Tree::Map(map), Some(key)) = (&open.tree, &key)
            && map.has_key(key)
        {
            return Err(format!("the field {key} is there twice"));
        }
        open.key = Some(key);
        Ok(())
    }

    fn begin(&mut self, tree: Tree, anchor: usize, tag: Option<&Tag>) -> Result<(), String> {
        if self.wants_key() {
            return Err("a key that is no text".to_owned());
        }
        match tag.map(Tag::original) {
            Some(tag) if tag != "!" => return Err(unsupported_tag(&tag)),
            _ => {}
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push(Open { tree, key: None, anchor });
        Ok(())
    }

    fn value(&mut self, value: Tree, anchor: usize) -> Result<(), String> {
        self.values += if anchor == 0 { 1 } else { size(&value) };
        self.bounded()?;
        if anchor != 0 {
            self.anchors.push((anchor, value.clone()));
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open { tree: Tree::List(list), .. }) => list.push(value),
            Some(Open { tree: Tree::Map(map), key, .. }) => {
                if let Some(Some(key)) = key.take() {
                    map.push(key, value);
                }
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn bounded(&self) -> Result<(), String> {
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values, aliases followed"));
        }
        Ok(())
    }
}

fn unsupported_tag(tag: &str) -> String {
    format!(
        "the tag {tag}, which could not be written again with the same meaning: write the value without it"
    )
}

fn size(tree: &Tree) -> usize {
    match tree {
        Tree::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Tree::Map(map) => 1 + map.iter().map(|(_, value)| size(value)).sum::<usize>(),
        _ => 1,
    }
}

fn depth(tree: &Tree) -> usize {
    match tree {
        Tree::List(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Tree::Map(map) => 1 + map.iter().map(|(_, value)| depth(value)).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A scalar without quotes.
fn plain(text: &str) -> Tree {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Tree::Null,
        _ => {}
    }
    if let Some(value) = boolean(text) {
        return Tree::Bool(value);
    }
    if let Some(value) = integer(text) {
        return Tree::Number(value.into());
    }
    // A fraction is a text to Envoy: it may be written as a number only if that gives the same letters.
    let fraction = text
        .parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .filter(|number| serde_saphyr::to_string(number).is_ok_and(|written| written.trim_end() == text));
    fraction.map_or_else(|| Tree::Text(text.to_owned()), Tree::Number)
}

fn boolean(text: &str) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    let capital = text.chars().next().is_some_and(|first| first.is_ascii_uppercase());
    let rest_lower = text.chars().skip(1).all(|letter| letter.is_ascii_lowercase());
    let all_upper = text.chars().all(|letter| letter.is_ascii_uppercase());
    if text != lower && !(capital && rest_lower) && !all_upper {
        return None;
    }
    match lower.as_str() {
        "y" | "yes" | "true" | "on" => Some(true),
        "n" | "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// Decimal, `0x` hexadecimal, or octal after a leading zero.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(rest) => (16, rest),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let signed = if negative { format!("-{digits}") } else { digits.to_owned() };
    i64::from_str_radix(&signed, radix).ok()
}
