//! Pages of delimited protobuf messages, `io.prometheus.client.MetricFamily`, with classic histograms.

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use super::labels::Labels;
use super::prometheus::PageTally;

/// A label.
#[derive(Clone, PartialEq, Message)]
pub struct LabelPair {
    /// Its name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its value.
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// One metric of a family.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) label: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Number>,
    #[prost(message, optional, tag = "4")]
    pub(super) summary: Option<Summary>,
    #[prost(message, optional, tag = "5")]
    pub(super) untyped: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
}

/// `Gauge`, `Counter` and `Untyped`, which have their value in the same place.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Number {
    #[prost(double, optional, tag = "1")]
    pub(super) value: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Summary {
    #[prost(uint64, optional, tag = "1")]
    pub(super) sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sample_sum: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, optional, tag = "1")]
    pub(super) sample_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) sample_sum: Option<f64>,
    #[prost(message, repeated, tag = "3")]
    pub(super) bucket: Vec<Bucket>,
    #[prost(double, optional, tag = "4")]
    pub(super) sample_count_float: Option<f64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, optional, tag = "1")]
    pub(super) cumulative_count: Option<u64>,
    #[prost(double, optional, tag = "2")]
    pub(super) upper_bound: Option<f64>,
    #[prost(double, optional, tag = "4")]
    pub(super) cumulative_count_float: Option<f64>,
}

/// Longest message of one metric that is decoded, in bytes; a decoded one takes some tens of times as much memory.
const LONGEST_METRIC_BYTES: usize = 256 * 1024;

/// Calls `visit` with what `find` returned, labels and value of each sample whose name `find` knows; names are those
/// of the text format, `…_sum`, `…_count` and `…_bucket` for histograms.
///
/// The page may be any bytes: a message that cannot be decoded is skipped and counted, and where even its length is
/// wrong the rest of the page is one bad part. One metric is held in memory at a time.
pub(super) fn for_each_known<T>(
    page: &[u8],
    mut find: impl FnMut(&str) -> Option<T>,
    mut visit: impl FnMut(T, Labels<'_>, f64),
) -> PageTally {
    let mut tally = PageTally::default();
    let mut rest = page;
    let mut name = String::new();
    while !rest.is_empty() {
        let Some(family) = delimited(&mut rest) else {
            tally.bad_lines += 1;
            break;
        };
        if family_name(family, &mut name).is_none() {
            tally.bad_lines += 1;
            continue;
        }
        let bare = name.len();
        for metric in fields(family) {
            match metric {
                Some((METRIC, metric)) if metric.len() <= LONGEST_METRIC_BYTES => {
                    match Metric::decode(metric) {
                        Ok(metric) => {
                            let mut emit = |suffix: &str, edge, value| {
                                tally.samples += 1;
                                name.push_str(suffix);
                                if let Some(found) = find(&name) {
                                    visit(found, Labels::pairs(&metric.label, edge), value);
                                }
                                name.truncate(bare);
                            };
                            samples(&metric, &mut emit);
                        }
                        Err(_) => tally.bad_lines += 1,
                    }
                }
                Some((METRIC, _)) | None => tally.bad_lines += 1,
                Some(_) => {}
            }
        }
    }
    tally
}

/// Tag of a family's metrics.
const METRIC: u32 = 4;

/// Hands on the samples of a metric: suffix of the name, edge of the bucket, value.
fn samples(metric: &Metric, emit: &mut impl FnMut(&str, Option<f64>, f64)) {
    for number in [&metric.gauge, &metric.counter, &metric.untyped].into_iter().flatten() {
        emit("", None, number.value.unwrap_or_default());
    }
    if let Some(summary) = &metric.summary {
        emit("_sum", None, summary.sample_sum.unwrap_or_default());
        emit("_count", None, summary.sample_count.unwrap_or_default() as f64);
    }
    if let Some(histogram) = &metric.histogram {
        let count = |whole: Option<u64>, float: Option<f64>| match float.filter(|float| *float > 0.0) {
            Some(float) => float,
            None => whole.unwrap_or_default() as f64,
        };
        emit("_sum", None, histogram.sample_sum.unwrap_or_default());
        emit("_count", None, count(histogram.sample_count, histogram.sample_count_float));
        for bucket in &histogram.bucket {
            let counted = count(bucket.cumulative_count, bucket.cumulative_count_float);
            emit("_bucket", bucket.upper_bound, counted);
        }
    }
}

/// Splits a message with its length before it off the front.
fn delimited<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (message, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(message)
}

/// Puts the name of a family into `name`.
fn family_name(family: &[u8], name: &mut String) -> Option<()> {
    const NAME: u32 = 1;
    let (_, bytes) = fields(family).map_while(|field| field).find(|(tag, _)| *tag == NAME)?;
    name.clear();
    name.push_str(std::str::from_utf8(bytes).ok()?);
    (!name.is_empty()).then_some(())
}

/// Yields tag and content of the fields of a message that have a length; `None` once where it is broken.
fn fields(message: &[u8]) -> impl Iterator<Item = Option<(u32, &[u8])>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let read = (|| {
                let (tag, kind) = decode_key(&mut rest).ok()?;
                let content = match kind {
                    WireType::LengthDelimited => return Some((tag, Some(delimited(&mut rest)?))),
                    WireType::Varint => decode_varint(&mut rest).ok().map(|_| ()),
                    WireType::ThirtyTwoBit => skip(&mut rest, 4),
                    WireType::SixtyFourBit => skip(&mut rest, 8),
                    WireType::StartGroup | WireType::EndGroup => None,
                };
                content.map(|()| (tag, None))
            })();
            match read {
                Some((tag, Some(content))) => return Some(Some((tag, content))),
                Some((_, None)) => {}
                None => {
                    rest = &[];
                    return Some(None);
                }
            }
        }
        None
    })
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

#[cfg(test)]
mod tests;
