//! OTLP metrics: `ExportMetricsServiceRequest` as protobuf, and (in `json`) in its JSON form.

pub(super) mod json;
mod point;

use std::borrow::Cow;

use super::collector::{Collector, Label, MOST_LABELS, Shape};
use super::exponential::{Exponential, MOST_COUNTS};
use super::refusal::RequestRefusal;
use super::wire::{BadWire, Fields, Value, fields, push_varints};

use point::{Data, Number, Scope, Spread};

/// `AGGREGATION_TEMPORALITY_DELTA`.
const DELTA: u64 = 1;

/// Fields of `Metric`: what its data are.
const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;

/// Reads a message.
pub(super) fn decode<'a>(message: &'a [u8], collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let mut labels: Vec<Label<'a>> = Vec::new();
    let mut resource: Vec<Label<'a>> = Vec::new();
    let mut request = fields(message);
    while let Some((number, value)) = request.next()? {
        if let (1, Some(bytes)) = (number, value.bytes()) {
            resource.clear();
            each_of(fields(bytes), 1, |bytes| {
                each_of(fields(bytes), 1, |pair| attribute(pair, &mut resource).map_err(Into::into))
            })?;
            let scope = Scope::new(&resource, collector);
            each_of(fields(bytes), 2, |bytes| {
                each_of(fields(bytes), 2, |bytes| metric(bytes, &scope, &mut labels, collector))
            })?;
        }
    }
    Ok(())
}

/// Calls `visit` with the bytes of each field of a number.
fn each_of<'a>(
    mut message: Fields<'a>,
    wanted: u32,
    mut visit: impl FnMut(&'a [u8]) -> Result<(), RequestRefusal>,
) -> Result<(), RequestRefusal> {
    while let Some((number, value)) = message.next()? {
        if let (true, Some(bytes)) = (number == wanted, value.bytes()) {
            visit(bytes)?;
        }
    }
    Ok(())
}

fn metric<'a>(
    message: &'a [u8],
    scope: &Scope<'_>,
    labels: &mut Vec<Label<'a>>,
    collector: &mut Collector<'_>,
) -> Result<(), RequestRefusal> {
    let (mut name, mut unit, mut data) = ("", "", None);
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match (number, value) {
            (1, value) => name = value.text()?.unwrap_or_default(),
            (3, value) => unit = value.text()?.unwrap_or_default(),
            (5 | 7 | 9 | 10 | 11, Value::Bytes(bytes)) => data = Some((number, bytes)),
            _ => {}
        }
    }
    let Some((kind, data)) = data else { return Ok(()) };
    let is_number = matches!(kind, 5 | 7);
    let known = match is_number {
        true => collector.names().number(name, unit).map(|known| (known, false)),
        false => collector.names().histogram(name, unit),
    };
    let Some((known, has_buckets)) = known else {
        let mut points = 0;
        each_of(fields(data), 1, |bytes| {
            if points == 0 && collector.wants_unknown() {
                labels.clear();
                let point = if is_number { number_point(bytes, labels)? } else { Data::default() };
                scope.note_unknown(name, kind, &point, labels, collector);
            }
            points += 1;
            Ok(())
        })?;
        return collector.unknown(points);
    };
    let mut delta = false;
    if kind != 5 && kind != 11 {
        let mut parts = fields(data);
        while let Some((number, value)) = parts.next()? {
            if let (2, Value::Varint(temporality)) = (number, value) {
                delta = temporality == DELTA;
            }
        }
    }
    let shape = Shape { known, delta, has_buckets };
    each_of(fields(data), 1, |bytes| {
        labels.clear();
        let point = match kind {
            5 | 7 => number_point(bytes, labels)?,
            9 => histogram_point(bytes, labels)?,
            10 => exponential_point(bytes, labels)?,
            _ => summary_point(bytes, labels)?,
        };
        scope.take(shape, point, labels, collector)
    })
}

fn number_point<'a>(message: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<Data<'a>, BadWire> {
    let mut data = Data::default();
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            2 => data.started_ns = value.fixed64().ok_or(BadWire)?,
            3 => data.at_ns = value.fixed64().ok_or(BadWire)?,
            4 => data.number = Some(Number::Double(value.double().ok_or(BadWire)?)),
            6 => data.number = Some(Number::Integer(value.fixed64().ok_or(BadWire)?.cast_signed())),
            7 => attribute(value.bytes().ok_or(BadWire)?, labels)?,
            8 => data.flags = value.varint().ok_or(BadWire)?,
            _ => {}
        }
    }
    Ok(data)
}

fn histogram_point<'a>(message: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<Data<'a>, BadWire> {
    let mut data = Data::default();
    let mut spread = Spread::default();
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            2 => data.started_ns = value.fixed64().ok_or(BadWire)?,
            3 => data.at_ns = value.fixed64().ok_or(BadWire)?,
            4 => spread.count = value.fixed64().ok_or(BadWire)?,
            5 => spread.sum = Some(value.double().ok_or(BadWire)?),
            6 => spread.counts.push(value)?,
            7 => spread.bounds.push(value)?,
            9 => attribute(value.bytes().ok_or(BadWire)?, labels)?,
            10 => data.flags = value.varint().ok_or(BadWire)?,
            _ => {}
        }
    }
    data.spread = Some(spread);
    Ok(data)
}

fn exponential_point<'a>(message: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<Data<'a>, BadWire> {
    let mut data = Data::default();
    let mut spread = Spread::default();
    let mut exponential = Exponential::default();
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            1 => attribute(value.bytes().ok_or(BadWire)?, labels)?,
            2 => data.started_ns = value.fixed64().ok_or(BadWire)?,
            3 => data.at_ns = value.fixed64().ok_or(BadWire)?,
            4 => spread.count = value.fixed64().ok_or(BadWire)?,
            5 => spread.sum = Some(value.double().ok_or(BadWire)?),
            6 => exponential.scale = small(value)?,
            7 => exponential.zeros += value.fixed64().ok_or(BadWire)? as f64,
            8 => {
                let (offset, counts) = buckets(value.bytes().ok_or(BadWire)?)?;
                exponential.offset = offset;
                exponential.counts = counts.into_iter().map(|count| count as f64).collect();
            }
            // Below zero there are no times; who has some is not told more of them than that.
            9 => {
                let (_, counts) = buckets(value.bytes().ok_or(BadWire)?)?;
                exponential.zeros += counts.into_iter().map(|count| count as f64).sum::<f64>();
            }
            10 => data.flags = value.varint().ok_or(BadWire)?,
            _ => {}
        }
    }
    spread.exponential = Some(exponential);
    data.spread = Some(spread);
    Ok(data)
}

/// The first bucket's index, and the counts; one more than can be taken where there are more.
fn buckets(message: &[u8]) -> Result<(i32, Vec<u64>), BadWire> {
    let (mut offset, mut counts) = (0, Vec::new());
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            1 => offset = small(value)?,
            2 => push_varints(value, MOST_COUNTS + 1, &mut counts)?,
            _ => {}
        }
    }
    Ok((offset, counts))
}

fn small(value: Value<'_>) -> Result<i32, BadWire> {
    value.zigzag().and_then(|value| i32::try_from(value).ok()).ok_or(BadWire)
}

/// Of a summary only count and sum are read.
fn summary_point<'a>(message: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<Data<'a>, BadWire> {
    let mut data = Data::default();
    let mut spread = Spread::default();
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            2 => data.started_ns = value.fixed64().ok_or(BadWire)?,
            3 => data.at_ns = value.fixed64().ok_or(BadWire)?,
            4 => spread.count = value.fixed64().ok_or(BadWire)?,
            5 => spread.sum = Some(value.double().ok_or(BadWire)?),
            7 => attribute(value.bytes().ok_or(BadWire)?, labels)?,
            8 => data.flags = value.varint().ok_or(BadWire)?,
            _ => {}
        }
    }
    data.spread = Some(spread);
    Ok(data)
}

/// Reads a `KeyValue`; lists, maps and bytes name nothing that is known, and are left out, and so is what is beyond one
/// too many.
fn attribute<'a>(message: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<(), BadWire> {
    let (mut key, mut text) = ("", None);
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            1 => key = value.text()?.ok_or(BadWire)?,
            2 => text = any_value(value.bytes().ok_or(BadWire)?)?,
            _ => {}
        }
    }
    if let Some(text) = text.filter(|_| labels.len() <= MOST_LABELS) {
        labels.push((Cow::Borrowed(key), text));
    }
    Ok(())
}

fn any_value(message: &[u8]) -> Result<Option<Cow<'_, str>>, BadWire> {
    let mut text = None;
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        text = match number {
            1 => value.text()?.map(Cow::Borrowed),
            2 => value.varint().map(|value| Cow::Borrowed(if value == 0 { "false" } else { "true" })),
            3 => value.varint().map(|value| Cow::Owned(value.cast_signed().to_string())),
            4 => value.double().map(|value| Cow::Owned(value.to_string())),
            _ => None,
        };
    }
    Ok(text)
}
