use std::borrow::Cow;

/// How many lines of a page were samples and how many could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageTally {
    /// Lines that held a sample.
    pub samples: usize,
    /// Lines that are neither a sample, a comment nor blank; they were skipped.
    pub bad_lines: usize,
}

/// The labels of one sample, borrowed from the page and decoded only when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labels<'a> {
    /// The text between the braces, already found to be well formed.
    raw: &'a str,
}

impl<'a> Labels<'a> {
    /// Yields name and unescaped value in the order of the page.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> + use<'a> {
        let mut rest = self.raw;
        std::iter::from_fn(move || {
            let (name, value, after) = next_label(rest)?;
            rest = after.trim_start_matches(BLANKS).trim_start_matches(',');
            Some((name, unescape(value)))
        })
    }

    /// Returns the value of the first label of that name.
    pub fn get(&self, name: &str) -> Option<Cow<'a, str>> {
        self.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| value)
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// Calls `visit` with name, labels and value of every sample of a page in the Prometheus text format or in
/// OpenMetrics text; timestamps and exemplars are checked and left out.
///
/// The page may be any bytes: a line that is not a sample is skipped and counted, it never spoils its neighbours.
/// Names in quotes (the UTF-8 form of Prometheus 3) count as bad lines.
pub fn for_each_sample<'a>(page: &'a [u8], mut visit: impl FnMut(&'a str, Labels<'a>, f64)) -> PageTally {
    let mut tally = PageTally::default();
    for line in page.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match std::str::from_utf8(line).ok().and_then(sample) {
            Some((name, labels, value)) => {
                tally.samples += 1;
                visit(name, labels, value);
            }
            None => tally.bad_lines += 1,
        }
    }
    tally
}

fn sample(line: &str) -> Option<(&str, Labels<'_>, f64)> {
    let (name, after_name) = identifier(line, |byte| byte == b':')?;
    let at_labels = after_name.trim_start_matches(BLANKS);
    let (labels, after_labels) = match at_labels.strip_prefix('{') {
        Some(inner) => label_block(inner)?,
        None if after_name.starts_with(BLANKS) => (Labels { raw: "" }, at_labels),
        None => return None,
    };
    let (value, after_value) = number(after_labels)?;
    let after_timestamp = match number(after_value) {
        Some((timestamp, rest)) if timestamp.is_finite() => rest,
        Some(_) => return None,
        None => after_value,
    };
    let tail = after_timestamp.trim_start_matches(BLANKS);
    if tail.is_empty() || exemplar(tail) { Some((name, labels, value)) } else { None }
}

/// Tells whether the rest of a line is an OpenMetrics exemplar: `# {labels} value [timestamp]`.
fn exemplar(tail: &str) -> bool {
    let Some(inner) = tail.strip_prefix('#').map(|rest| rest.trim_start_matches(BLANKS)) else {
        return false;
    };
    let Some((_, rest)) = inner.strip_prefix('{').and_then(label_block) else { return false };
    let Some((_, rest)) = number(rest) else { return false };
    let rest = number(rest).map_or(rest, |(_, after)| after);
    rest.trim_start_matches(BLANKS).is_empty()
}

/// Splits a name off the front; `extra` are the bytes allowed besides letters, digits and `_`.
fn identifier(text: &str, extra: fn(u8) -> bool) -> Option<(&str, &str)> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || extra(byte);
    let end = text.bytes().position(|byte| !allowed(byte)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let first = name.bytes().next()?;
    if first.is_ascii_digit() { None } else { Some((name, rest)) }
}

/// Splits one number off the front, blanks before it skipped; NaN and the infinities are numbers.
fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_start_matches(BLANKS);
    let end = text.find(BLANKS).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    Some((word.parse().ok()?, rest))
}

/// Checks the labels behind an opening brace; returns them and what follows the closing one.
fn label_block(inner: &str) -> Option<(Labels<'_>, &str)> {
    let mut rest = inner;
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if !rest.starts_with('}') {
            let (_, _, after) = next_label(rest)?;
            rest = after.trim_start_matches(BLANKS);
            if let Some(more) = rest.strip_prefix(',') {
                rest = more;
                continue;
            }
        }
        let after = rest.strip_prefix('}')?;
        let raw = &inner[..inner.len() - rest.len()];
        return Some((Labels { raw }, after));
    }
}

/// Splits `name="value"` off the front; the value is still escaped.
fn next_label(text: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = identifier(text.trim_start_matches(BLANKS), |_| false)?;
    let rest = rest.trim_start_matches(BLANKS).strip_prefix('=')?;
    let rest = rest.trim_start_matches(BLANKS).strip_prefix('"')?;
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((name, &rest[..at], &rest[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Decodes `\\`, `\"` and `\n`; an unknown escape stands for itself.
fn unescape(raw: &str) -> Cow<'_, str> {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Row = (String, Vec<(String, String)>, f64);

    fn rows(page: impl AsRef<[u8]>) -> (Vec<Row>, PageTally) {
        let mut rows = Vec::new();
        let tally = for_each_sample(page.as_ref(), |name, labels, value| {
            let labels = labels.iter().map(|(key, value)| (key.to_owned(), value.into_owned())).collect();
            rows.push((name.to_owned(), labels, value));
        });
        (rows, tally)
    }

    fn one(line: &str) -> Row {
        let (mut rows, tally) = rows(line);
        assert_eq!(tally, PageTally { samples: 1, bad_lines: 0 }, "{line}");
        rows.remove(0)
    }

    #[test]
    fn reads_the_forms_a_sample_comes_in() {
        assert_eq!(one("up 1"), ("up".into(), vec![], 1.0));
        assert_eq!(one("  up\t1e3  "), ("up".into(), vec![], 1000.0));
        assert_eq!(one("up{} 1 1700000000000"), ("up".into(), vec![], 1.0));
        let labelled = ("a:b".to_owned(), vec![("c".to_owned(), "d".to_owned())], -2.5);
        assert_eq!(one(r#"a:b{c="d"} -2.5"#), labelled);
        assert_eq!(one(r#"a:b { c = "d" , } -2.5 1700000000.123"#), labelled);
        assert_eq!(one(r#"a:b{c="d"}-2.5 # {trace="x"} 0.5 1.5"#), labelled);
        assert_eq!(one("a +Inf").2, f64::INFINITY);
        assert_eq!(one("a -Inf").2, f64::NEG_INFINITY);
        assert!(one("a NaN").2.is_nan());
    }

    #[test]
    fn decodes_escapes_and_finds_labels_by_name() {
        let line = r#"a{path="C:\\new",quote="\"}\"",feed="x\ny",odd="\q"} 1"#;
        let mut seen = 0;
        for_each_sample(line.as_bytes(), |_, labels, _| {
            seen += 1;
            assert_eq!(labels.get("path").as_deref(), Some(r"C:\new"));
            assert_eq!(labels.get("quote").as_deref(), Some(r#""}""#));
            assert_eq!(labels.get("feed").as_deref(), Some("x\ny"));
            assert_eq!(labels.get("odd").as_deref(), Some(r"\q"));
            assert_eq!(labels.get("none"), None);
        });
        assert_eq!(seen, 1);
    }

    #[test]
    fn a_bad_line_is_counted_and_its_neighbours_survive() {
        let page =
            b"# HELP a b\r\na 1\r\n\r\nno_value\r\n1a 2\r\na{b=\"c} 1\r\na{b=c} 1\r\na{,} 1\r\na 1 2 3\r\n\
            a x\r\na 1 # nonsense\r\n\xff\xfe 1\r\n{\"quoted\"} 1\r\nb 2\r\n# EOF\r\n";
        let (rows, tally) = rows(page);
        assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(tally, PageTally { samples: 2, bad_lines: 10 });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(page in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let (rows, tally) = rows(&page);
            prop_assert_eq!(rows.len(), tally.samples);
        }

        #[test]
        fn near_samples_are_read_without_a_panic(page in "([a-c:_]{0,3}[{}=\",\\\\ #\n]{0,4}[0-9.eINa+-]{0,3}){0,40}") {
            let (rows, tally) = rows(&page);
            prop_assert_eq!(rows.len(), tally.samples);
        }

        #[test]
        fn what_was_written_is_read(
            name in "[a-z_:][a-z0-9_:]{0,20}",
            labels in proptest::collection::vec(("[a-z_][a-z0-9_]{0,8}", any::<String>()), 0..5),
            value in any::<f64>(),
        ) {
            let written = labels
                .iter()
                .map(|(key, value)| {
                    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
                    format!("{key}=\"{value}\"")
                })
                .collect::<Vec<_>>()
                .join(",");
            let (rows, tally) = rows(format!("{name}{{{written}}} {value}"));
            prop_assert_eq!(tally, PageTally { samples: 1, bad_lines: 0 });
            prop_assert_eq!(&rows[0].0, &name);
            prop_assert_eq!(&rows[0].1, &labels);
            prop_assert!(rows[0].2 == value || (rows[0].2.is_nan() && value.is_nan()));
        }
    }
}
