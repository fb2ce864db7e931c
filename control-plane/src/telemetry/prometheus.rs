use super::labels::{BLANKS, Labels, identifier, label_block, unescape};

/// How many samples of a page were read and how many parts of it could not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageTally {
    /// Samples.
    pub samples: usize,
    /// Lines (of a protobuf page: messages) that are neither a sample, a comment nor blank; they were skipped.
    pub bad_lines: usize,
}

/// Calls `visit` with name, labels and value of every sample of a page in the Prometheus text format or in
/// OpenMetrics text; timestamps and exemplars are checked and left out.
///
/// The page may be any bytes: a line that is not a sample is skipped and counted, it never spoils its neighbours.
/// Names in quotes (the UTF-8 form of Prometheus 3) are names like others.
pub fn for_each_sample(page: &[u8], mut visit: impl FnMut(&str, Labels<'_>, f64)) -> PageTally {
    // Whatever is found is the name itself, so every line is checked in full.
    for_each_known(page, |name| Some(name.to_owned()), |name, labels, value| visit(&name, labels, value))
}

/// Calls `visit` with what `find` returned, labels and value of each sample whose name `find` knows.
///
/// Of lines with other names only the outline is checked: balanced braces, and something like a number behind them.
pub(super) fn for_each_known<T>(
    page: &[u8],
    mut find: impl FnMut(&str) -> Option<T>,
    mut visit: impl FnMut(T, Labels<'_>, f64),
) -> PageTally {
    let mut tally = PageTally::default();
    let mut count = |line: &str| match sample(line, &mut find, &mut visit) {
        Some(()) => tally.samples += 1,
        None => tally.bad_lines += 1,
    };
    // One look at the whole page is cheaper than one at each line; a page that is no text can still have lines that are.
    match std::str::from_utf8(page) {
        Ok(page) => {
            let mut rest = page;
            while !rest.is_empty() {
                let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
                let line = trimmed(&rest[..end]);
                rest = rest.get(end + 1..).unwrap_or_default();
                if !line.is_empty() && !line.starts_with('#') {
                    count(line);
                }
            }
        }
        Err(_) => {
            for line in page.split(|&byte| byte == b'\n') {
                let line = line.trim_ascii();
                if !line.is_empty() && !line.starts_with(b"#") {
                    // Bytes that are no text make a line that is no sample.
                    count(std::str::from_utf8(line).unwrap_or("?"));
                }
            }
        }
    }
    tally
}

fn trimmed(line: &str) -> &str {
    line.trim_matches(|character: char| character.is_ascii_whitespace())
}

/// Reads one line; none when it is no sample.
fn sample<T>(
    line: &str,
    find: &mut impl FnMut(&str) -> Option<T>,
    visit: &mut impl FnMut(T, Labels<'_>, f64),
) -> Option<()> {
    if let Some(inner) = line.strip_prefix('{') {
        let (labels, metric, rest) = label_block(inner)?;
        let value = value_behind(rest)?;
        if let Some(found) = find(&unescape(metric?)) {
            visit(found, labels, value);
        }
        return Some(());
    }
    let (name, after_name) = identifier(line, |byte| byte == b':')?;
    let Some(found) = find(name) else { return has_outline(after_name).then_some(()) };
    let at_labels = after_name.trim_start_matches(BLANKS);
    let (labels, rest) = match at_labels.strip_prefix('{') {
        Some(inner) => {
            let (labels, metric, rest) = label_block(inner)?;
            if metric.is_some() {
                return None;
            }
            (labels, rest)
        }
        None if after_name.starts_with(BLANKS) => (Labels::text(""), at_labels),
        None => return None,
    };
    visit(found, labels, value_behind(rest)?);
    Some(())
}

/// Tells whether what follows a name looks like labels and a value.
fn has_outline(after_name: &str) -> bool {
    let text = after_name.trim_start_matches(BLANKS);
    let behind = if text.starts_with('{') {
        match memchr::memrchr(b'}', text.as_bytes()) {
            Some(end) => &text[end + 1..],
            None => return false,
        }
    } else if after_name.len() > text.len() {
        text
    } else {
        return false;
    };
    let first = behind.trim_start_matches(BLANKS).bytes().next();
    first.is_some_and(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'N' | b'n' | b'I' | b'i'))
}

/// Reads the value behind name and labels, and checks what follows it.
fn value_behind(rest: &str) -> Option<f64> {
    let (value, after_value) = number(rest)?;
    let after_timestamp = match number(after_value) {
        Some((timestamp, rest)) if timestamp.is_finite() => rest,
        Some(_) => return None,
        None => after_value,
    };
    let tail = after_timestamp.trim_start_matches(BLANKS);
    if tail.is_empty() || exemplar(tail) { Some(value) } else { None }
}

/// Tells whether the rest of a line is an OpenMetrics exemplar: `# {labels} value [timestamp]`.
fn exemplar(tail: &str) -> bool {
    let Some(inner) = tail.strip_prefix('#').map(|rest| rest.trim_start_matches(BLANKS)) else {
        return false;
    };
    let Some((_, None, rest)) = inner.strip_prefix('{').and_then(label_block) else { return false };
    let Some((_, rest)) = number(rest) else { return false };
    let rest = number(rest).map_or(rest, |(_, after)| after);
    rest.trim_start_matches(BLANKS).is_empty()
}

/// Splits one number off the front, blanks before it skipped; NaN and the infinities are numbers.
fn number(text: &str) -> Option<(f64, &str)> {
    let text = text.trim_start_matches(BLANKS);
    let end = text.find(BLANKS).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    Some((word.parse().ok()?, rest))
}

#[cfg(test)]
mod tests;
