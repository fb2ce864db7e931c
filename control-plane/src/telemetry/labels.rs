use std::borrow::Cow;

use super::protobuf::LabelPair;

/// The labels of one sample, borrowed from the page and decoded only when asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labels<'a>(Form<'a>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form<'a> {
    /// The text between the braces, already found to be well formed.
    Text(&'a str),
    /// The pairs of a message, and the edge of a bucket, which is no label there.
    Pairs(&'a [LabelPair], Option<f64>),
}

impl<'a> Labels<'a> {
    pub(super) fn text(raw: &'a str) -> Self {
        Self(Form::Text(raw))
    }

    pub(super) fn pairs(pairs: &'a [LabelPair], edge: Option<f64>) -> Self {
        Self(Form::Pairs(pairs, edge))
    }

    /// Yields name and value, both unescaped, in the order of the page; not the edge of a bucket in protobuf.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> + use<'a> {
        let (mut text, mut pairs) = match self.0 {
            Form::Text(text) => (text, [].iter()),
            Form::Pairs(pairs, _) => ("", pairs.iter()),
        };
        std::iter::from_fn(move || {
            if let Some(pair) = pairs.next() {
                return Some((Cow::Borrowed(pair.name()), Cow::Borrowed(pair.value())));
            }
            loop {
                let (item, after) = next_item(text)?;
                text = after.trim_start_matches(BLANKS).trim_start_matches(',');
                if let Item::Label { name, value } = item {
                    return Some((unescape(name), unescape(value)));
                }
            }
        })
    }

    /// Returns the value of the first label of that name.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.iter().find(|(candidate, _)| candidate == name).map(|(_, value)| value)
    }

    /// Returns the upper edge of a bucket.
    pub fn edge(&self) -> Option<f64> {
        match self.0 {
            Form::Pairs(_, Some(edge)) => Some(edge),
            _ => self.get("le")?.trim().parse().ok(),
        }
    }

    /// Tells whether the word occurs anywhere in names or values: cheaper than to look at each label.
    pub(super) fn mention(&self, word: &str) -> bool {
        match self.0 {
            Form::Text(raw) => memchr::memmem::find(raw.as_bytes(), word.as_bytes()).is_some(),
            Form::Pairs(pairs, _) => pairs.iter().any(|pair| pair.name().contains(word)),
        }
    }
}

pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// One element between the braces; both parts still escaped.
pub(super) enum Item<'a> {
    /// `name="value"` or `"name"="value"`.
    Label { name: &'a str, value: &'a str },
    /// `"name"`: the name of the metric itself.
    Metric(&'a str),
}

/// Checks the labels behind an opening brace; returns them, the metric's name where it stands among them, and what
/// follows the closing brace.
pub(super) fn label_block(inner: &str) -> Option<(Labels<'_>, Option<&str>, &str)> {
    let mut rest = inner;
    let mut metric = None;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if !rest.starts_with('}') {
            let (item, after) = next_item(rest)?;
            if let Item::Metric(name) = item
                && (metric.replace(name).is_some() || name.is_empty())
            {
                return None;
            }
            rest = after.trim_start_matches(BLANKS);
            if let Some(more) = rest.strip_prefix(',') {
                rest = more;
                continue;
            }
        }
        let after = rest.strip_prefix('}')?;
        let raw = &inner[..inner.len() - rest.len()];
        return Some((Labels::text(raw), metric, after));
    }
}

fn next_item(text: &str) -> Option<(Item<'_>, &str)> {
    let text = text.trim_start_matches(BLANKS);
    let (name, rest, quoted) = match text.strip_prefix('"') {
        Some(inside) => {
            let (name, rest) = quoted(inside)?;
            (name, rest, true)
        }
        None => {
            let (name, rest) = identifier(text, |_| false)?;
            (name, rest, false)
        }
    };
    match rest.trim_start_matches(BLANKS).strip_prefix('=') {
        Some(rest) => {
            let inside = rest.trim_start_matches(BLANKS).strip_prefix('"')?;
            let (value, rest) = self::quoted(inside)?;
            Some((Item::Label { name, value }, rest))
        }
        None if quoted => Some((Item::Metric(name), rest)),
        None => None,
    }
}

/// Splits the text up to the closing quote off the front, still escaped; the opening one is gone already.
fn quoted(inside: &str) -> Option<(&str, &str)> {
    let bytes = inside.as_bytes();
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', &bytes[from..])?;
        if bytes[at] == b'"' {
            return Some((&inside[..at], &inside[at + 1..]));
        }
        // The escaped character may be of several bytes; none of those is a quote.
        from = at + 2;
        if from > bytes.len() {
            return None;
        }
    }
}

/// Splits a name off the front; `extra` are the bytes allowed besides letters, digits and `_`.
pub(super) fn identifier(text: &str, extra: fn(u8) -> bool) -> Option<(&str, &str)> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || extra(byte);
    let end = text.bytes().position(|byte| !allowed(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let first = name.bytes().next()?;
    if first.is_ascii_digit() { None } else { Some((name, rest)) }
}

/// Decodes `\\`, `\"` and `\n`; an unknown escape stands for itself.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('\\') {
        return Cow::Borrowed(raw);
    }
    let mut decoded = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            decoded.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => decoded.push('\n'),
            Some(plain @ ('\\' | '"')) => decoded.push(plain),
            Some(other) => decoded.extend(['\\', other]),
            None => decoded.push('\\'),
        }
    }
    Cow::Owned(decoded)
}
