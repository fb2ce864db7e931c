//! Prometheus remote write 1.0: `WriteRequest`, `TimeSeries`, `Label`, `Sample`. Exemplars, native histograms and
//! metadata are not read.

use std::borrow::Cow;

use super::batch::PointValue;
use super::collector::{Collector, Identity, Label, MOST_LABELS, Shape};
use super::refusal::{PointRefusal, RequestRefusal};
use super::wire::{BadWire, fields};

/// The NaN by which Prometheus says that a series has ended.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Reads a message.
pub(super) fn decode<'a>(message: &'a [u8], collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let mut labels: Vec<Label<'a>> = Vec::new();
    let mut request = fields(message);
    while let Some((number, value)) = request.next()? {
        if let (1, Some(series)) = (number, value.bytes()) {
            time_series(series, &mut labels, collector)?;
        }
    }
    Ok(())
}

fn time_series<'a>(
    series: &'a [u8],
    labels: &mut Vec<Label<'a>>,
    collector: &mut Collector<'_>,
) -> Result<(), RequestRefusal> {
    let Some(name) = name(series)? else {
        return Err(RequestRefusal::Malformed("a series without `__name__`".to_owned()));
    };
    let Some(known) = collector.names().number(name, "") else {
        if collector.wants_unknown() {
            note_unknown(series, name, labels, collector)?;
        }
        return collector.unknown(points(series)?);
    };
    read_labels(series, labels)?;
    if labels.len() > MOST_LABELS {
        return collector.refuse(points(series)?, PointRefusal::TooManyLabels, || known.series.to_owned());
    }
    let own = collector.identity(labels);
    let none = Identity::default();
    let member = match collector.find(&own, &none) {
        Ok(member) => member,
        Err(refusal) => return collector.refuse_unnamed(points(series)?, refusal, &own, &none),
    };
    let text = match collector.series(known, labels) {
        Ok(text) => text,
        Err(refusal) => return collector.refuse(points(series)?, refusal, || known.series.to_owned()),
    };
    let mut parts = fields(series);
    while let Some((number, value)) = parts.next()? {
        if let (2, Some(bytes)) = (number, value.bytes()) {
            let (value, at_ms) = sample(bytes)?;
            let value = match value.to_bits() {
                STALE => PointValue::Ended,
                _ => PointValue::Number(value),
            };
            // Where 0 is a time, it is one long past.
            if at_ms == 0 {
                collector.refuse(1, PointRefusal::TooOld, || "a time of 0".to_owned())?;
            } else {
                collector.add(member, text.clone(), at_ms, Shape::of(known), value)?;
            }
        }
    }
    Ok(())
}

fn read_labels<'a>(series: &'a [u8], labels: &mut Vec<Label<'a>>) -> Result<(), BadWire> {
    labels.clear();
    let mut parts = fields(series);
    while let Some((number, value)) = parts.next()? {
        if let (1, Some(bytes)) = (number, value.bytes()) {
            let (name, value) = label(bytes)?;
            if labels.len() <= MOST_LABELS {
                labels.push((Cow::Borrowed(name), Cow::Borrowed(value)));
            }
        }
    }
    Ok(())
}

fn note_unknown<'a>(
    series: &'a [u8],
    name: &str,
    labels: &mut Vec<Label<'a>>,
    collector: &mut Collector<'_>,
) -> Result<(), BadWire> {
    read_labels(series, labels)?;
    let mut parts = fields(series);
    while let Some((number, value)) = parts.next()? {
        if let (2, Some(bytes)) = (number, value.bytes()) {
            let (value, _) = sample(bytes)?;
            let own = collector.identity(labels);
            if value.to_bits() != STALE {
                collector.note_unknown(name, "unknown", value, &own, &Identity::default());
            }
            break;
        }
    }
    Ok(())
}

/// The name of a series: mostly its first label, as labels are sorted.
fn name(series: &[u8]) -> Result<Option<&str>, BadWire> {
    let mut parts = fields(series);
    while let Some((number, value)) = parts.next()? {
        if let (1, Some(bytes)) = (number, value.bytes()) {
            let (name, value) = label(bytes)?;
            if name == "__name__" {
                return Ok(Some(value));
            }
        }
    }
    Ok(None)
}

fn points(series: &[u8]) -> Result<usize, BadWire> {
    let mut count = 0;
    let mut parts = fields(series);
    while let Some((number, _)) = parts.next()? {
        count += usize::from(number == 2 || number == 4);
    }
    Ok(count)
}

fn label(message: &[u8]) -> Result<(&str, &str), BadWire> {
    let (mut name, mut text) = ("", "");
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            1 => name = value.text()?.ok_or(BadWire)?,
            2 => text = value.text()?.ok_or(BadWire)?,
            _ => {}
        }
    }
    Ok((name, text))
}

fn sample(message: &[u8]) -> Result<(f64, i64), BadWire> {
    let (mut number_value, mut at_ms) = (0.0, 0);
    let mut parts = fields(message);
    while let Some((number, value)) = parts.next()? {
        match number {
            1 => number_value = value.double().ok_or(BadWire)?,
            2 => at_ms = value.varint().ok_or(BadWire)?.cast_signed(),
            _ => {}
        }
    }
    Ok((number_value, at_ms))
}
