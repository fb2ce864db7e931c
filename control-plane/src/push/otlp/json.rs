//! The JSON form of OTLP: lowerCamelCase keys, 64-bit integers as strings or numbers, unknown keys ignored.
//!
//! Lists are read element by element, so that a body of many small ones does not become many times its size.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::super::collector::{Collector, Label, MOST_BUCKETS, MOST_LABELS, Shape};
use super::super::exponential::{Exponential, MOST_COUNTS};
use super::super::plain::each;
use super::super::refusal::RequestRefusal;
use super::point::{Data, List, Number, Scope, Spread};
use super::{DELTA, GAUGE, HISTOGRAM, SUM};

type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, rename = "resourceMetrics")]
    resource_metrics: Raw<'a>,
}

#[derive(Deserialize)]
struct ResourceMetrics<'a> {
    #[serde(borrow)]
    resource: Option<Attributes<'a>>,
    #[serde(borrow, rename = "scopeMetrics")]
    scope_metrics: Raw<'a>,
}

#[derive(Deserialize)]
struct Attributes<'a> {
    #[serde(borrow)]
    attributes: Raw<'a>,
}

#[derive(Deserialize)]
struct ScopeMetrics<'a> {
    #[serde(borrow)]
    metrics: Raw<'a>,
}

#[derive(Deserialize)]
struct Metric<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    unit: Cow<'a, str>,
    #[serde(borrow)]
    gauge: Option<Points<'a>>,
    #[serde(borrow)]
    sum: Option<Points<'a>>,
    #[serde(borrow)]
    histogram: Option<Points<'a>>,
    #[serde(borrow, rename = "exponentialHistogram")]
    exponential_histogram: Option<Points<'a>>,
    #[serde(borrow)]
    summary: Option<Points<'a>>,
}

#[derive(Deserialize)]
struct Points<'a> {
    #[serde(borrow, rename = "dataPoints")]
    data_points: Raw<'a>,
    #[serde(default, rename = "aggregationTemporality")]
    temporality: Option<Temporality<'a>>,
}

/// An enum is a number; some writers give its name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Temporality<'a> {
    Number(u64),
    Name(Cow<'a, str>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Point<'a> {
    #[serde(borrow)]
    attributes: Raw<'a>,
    #[serde(default)]
    start_time_unix_nano: Loose<'a>,
    #[serde(default)]
    time_unix_nano: Loose<'a>,
    #[serde(default)]
    as_double: Loose<'a>,
    #[serde(default)]
    as_int: Loose<'a>,
    #[serde(default)]
    count: Loose<'a>,
    #[serde(default)]
    sum: Loose<'a>,
    #[serde(borrow)]
    bucket_counts: Raw<'a>,
    #[serde(borrow)]
    explicit_bounds: Raw<'a>,
    #[serde(default)]
    flags: Loose<'a>,
    #[serde(default)]
    scale: Loose<'a>,
    #[serde(default)]
    zero_count: Loose<'a>,
    #[serde(borrow)]
    positive: Option<Buckets<'a>>,
    #[serde(borrow)]
    negative: Option<Buckets<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Buckets<'a> {
    #[serde(default)]
    offset: Loose<'a>,
    #[serde(borrow)]
    bucket_counts: Raw<'a>,
}

/// Reads the buckets of an exponential histogram.
fn exponential(point: &Point<'_>) -> Result<Exponential, RequestRefusal> {
    let counts = |buckets: &Option<Buckets<'_>>| -> Result<Vec<f64>, RequestRefusal> {
        let list = buckets.as_ref().and_then(|buckets| buckets.bucket_counts);
        let counts = values(list, loose::<u64>, MOST_COUNTS + 1)?;
        Ok(counts.into_iter().map(|count| count as f64).collect())
    };
    let offset = point.positive.as_ref().map(|buckets| buckets.offset.read()).transpose()?;
    let zeros: u64 = point.zero_count.read()?.unwrap_or(0);
    Ok(Exponential {
        scale: point.scale.read()?.unwrap_or(0),
        zeros: zeros as f64 + counts(&point.negative)?.iter().sum::<f64>(),
        offset: offset.flatten().unwrap_or(0),
        counts: counts(&point.positive)?,
    })
}

/// A number, or a string with one.
#[derive(Deserialize, Default)]
#[serde(transparent)]
struct Loose<'a>(#[serde(borrow)] Raw<'a>);

impl Loose<'_> {
    fn read<T: DeserializeOwned + std::str::FromStr>(&self) -> Result<Option<T>, RequestRefusal> {
        match self.0.map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(text) => loose(text).map(Some),
        }
    }
}

fn loose<T: std::str::FromStr>(text: &str) -> Result<T, RequestRefusal> {
    let bare = text.trim().trim_matches('"');
    // Protobuf's JSON spells infinity as JavaScript does; Rust reads that, too.
    bare.parse().map_err(|_| RequestRefusal::Malformed(format!("no number: {}", &cut(text))))
}

fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

#[derive(Deserialize)]
struct KeyValue<'a> {
    #[serde(borrow, default)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<AnyValue<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue<'a> {
    #[serde(borrow)]
    string_value: Option<Cow<'a, str>>,
    bool_value: Option<bool>,
    #[serde(borrow, default)]
    int_value: Loose<'a>,
    #[serde(borrow, default)]
    double_value: Loose<'a>,
}

/// Reads a body.
pub(in crate::push) fn decode(body: &[u8], collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let request: Request<'_> = serde_json::from_slice(body).map_err(malformed)?;
    each_of(request.resource_metrics, |text| {
        let group: ResourceMetrics<'_> = read(text)?;
        let mut resource = Vec::new();
        attributes(group.resource.and_then(|resource| resource.attributes), &mut resource)?;
        let scope = Scope::new(&resource, collector);
        each_of(group.scope_metrics, |text| {
            let metrics: ScopeMetrics<'_> = read(text)?;
            each_of(metrics.metrics, |text| metric(text, &scope, collector))
        })
    })
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, RequestRefusal> {
    serde_json::from_str(text).map_err(malformed)
}

fn malformed(error: serde_json::Error) -> RequestRefusal {
    RequestRefusal::Malformed(error.to_string())
}

fn each_of(
    list: Raw<'_>,
    mut visit: impl FnMut(&str) -> Result<(), RequestRefusal>,
) -> Result<(), RequestRefusal> {
    let Some(list) = list else { return Ok(()) };
    let mut refusal = None;
    each(list.get(), |text| visit(text).map_err(|error| refusal = Some(error)).is_ok()).map_err(malformed)?;
    refusal.map_or(Ok(()), Err)
}

fn metric(text: &str, scope: &Scope<'_>, collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let Metric { name, unit, gauge, sum, histogram, exponential_histogram, summary } = read(text)?;
    let is_number = gauge.is_some() || sum.is_some();
    let kind = match (gauge.is_some(), is_number) {
        (true, _) => GAUGE,
        (false, true) => SUM,
        (false, false) => HISTOGRAM,
    };
    let has_buckets = histogram.is_some();
    let is_exponential = !has_buckets && !is_number && exponential_histogram.is_some();
    let data = gauge.or(sum).or(histogram).or(exponential_histogram).or(summary);
    let Some(Points { data_points, temporality }) = data else { return Ok(()) };
    let known = match is_number {
        true => collector.names().number(&name, &unit).map(|known| (known, false)),
        false => collector.names().histogram(&name, &unit),
    };
    let Some((known, reads_buckets)) = known else {
        let mut points = 0;
        each_of(data_points, |text| {
            if points == 0 && collector.wants_unknown() {
                let point: Point<'_> = read(text)?;
                let mut labels = Vec::new();
                attributes(point.attributes, &mut labels)?;
                let double: Option<f64> = point.as_double.read()?;
                let integer: Option<i64> = point.as_int.read()?;
                let number = double.map(Number::Double).or(integer.map(Number::Integer));
                let data = Data { number, ..Data::default() };
                scope.note_unknown(&name, kind, &data, &labels, collector);
            }
            points += 1;
            Ok(())
        })?;
        return collector.unknown(points);
    };
    let delta = match temporality {
        Some(Temporality::Number(number)) => number == DELTA,
        Some(Temporality::Name(name)) => name == "AGGREGATION_TEMPORALITY_DELTA",
        None => false,
    };
    each_of(data_points, |text| {
        let point: Point<'_> = read(text)?;
        let mut labels = Vec::new();
        attributes(point.attributes, &mut labels)?;
        let mut data = Data {
            started_ns: point.start_time_unix_nano.read()?.unwrap_or(0),
            at_ns: point.time_unix_nano.read()?.unwrap_or(0),
            flags: point.flags.read()?.unwrap_or(0),
            ..Data::default()
        };
        if is_number {
            let double: Option<f64> = point.as_double.read()?;
            let integer: Option<i64> = point.as_int.read()?;
            data.number = double.map(Number::Double).or(integer.map(Number::Integer));
        } else {
            let mut spread = Spread {
                count: point.count.read()?.unwrap_or(0),
                sum: point.sum.read()?,
                ..Spread::default()
            };
            if is_exponential {
                spread.exponential = Some(exponential(&point)?);
            }
            if has_buckets {
                spread.counts = List::Read(values(point.bucket_counts, loose::<u64>, MOST_BUCKETS + 2)?);
                let bounds = |text: &str| loose::<f64>(text).map(f64::to_bits);
                spread.bounds = List::Read(values(point.explicit_bounds, bounds, MOST_BUCKETS + 2)?);
            }
            data.spread = Some(spread);
        }
        scope.take(Shape { known, delta, has_buckets: reads_buckets }, data, &mut labels, collector)
    })
}

/// Reads a list up to one that is too long to be taken.
fn values(
    list: Raw<'_>,
    read: impl Fn(&str) -> Result<u64, RequestRefusal>,
    most: usize,
) -> Result<Vec<u64>, RequestRefusal> {
    let mut values = Vec::new();
    each_of(list, |text| {
        let value = read(text)?;
        if values.len() < most {
            values.push(value);
        }
        Ok(())
    })?;
    Ok(values)
}

fn attributes(list: Raw<'_>, labels: &mut Vec<Label<'static>>) -> Result<(), RequestRefusal> {
    each_of(list, |text| {
        let KeyValue { key, value } = read(text)?;
        let Some(value) = value else { return Ok(()) };
        let integer: Option<i64> = value.int_value.read()?;
        let double: Option<f64> = value.double_value.read()?;
        let shown = value
            .string_value
            .map(Cow::into_owned)
            .or(value.bool_value.map(|value| value.to_string()))
            .or(integer.map(|value| value.to_string()))
            .or(double.map(|value| value.to_string()));
        if let Some(shown) = shown.filter(|_| labels.len() <= MOST_LABELS) {
            labels.push((Cow::Owned(key.into_owned()), Cow::Owned(shown)));
        }
        Ok(())
    })
}
