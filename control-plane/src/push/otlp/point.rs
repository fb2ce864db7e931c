use super::super::batch::PointValue;
use super::super::collector::{Collector, Identity, Label, MOST_BUCKETS, MOST_LABELS, Shape};
use super::super::exponential::Exponential;
use super::super::refusal::{PointRefusal, RequestRefusal};
use super::super::wire::{BadWire, Value, fixed64s};
use super::{GAUGE, SUM};

/// `DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK`: the series has ended.
const NO_RECORDED_VALUE: u64 = 1;

/// A point as the wire has it, without its attributes.
#[derive(Default)]
pub(super) struct Data<'a> {
    pub(super) at_ns: u64,
    /// Since when it counts; 0 where that is not told.
    pub(super) started_ns: u64,
    pub(super) flags: u64,
    pub(super) number: Option<Number>,
    pub(super) spread: Option<Spread<'a>>,
}

#[derive(Clone, Copy)]
pub(super) enum Number {
    Double(f64),
    Integer(i64),
}

/// Count, sum and buckets.
#[derive(Default)]
pub(super) struct Spread<'a> {
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) counts: List<'a>,
    pub(super) bounds: List<'a>,
    /// In place of counts and bounds.
    pub(super) exponential: Option<Exponential>,
}

/// A list of 64-bit values: packed as it came, or read one by one.
pub(super) enum List<'a> {
    Packed(Value<'a>),
    Read(Vec<u64>),
}

impl Default for List<'_> {
    fn default() -> Self {
        Self::Read(Vec::new())
    }
}

impl<'a> List<'a> {
    /// Takes one field of the list. What is beyond a usable number of buckets is left out; the list is then too long to be
    /// taken at all.
    pub(super) fn push(&mut self, value: Value<'a>) -> Result<(), BadWire> {
        if matches!((&*self, value), (Self::Read(held), Value::Bytes(_)) if held.is_empty()) {
            *self = Self::Packed(value);
            return Ok(());
        }
        let more = fixed64s(value)?;
        if let Self::Packed(first) = *self {
            *self = Self::Read(fixed64s(first)?.take(MOST_BUCKETS + 2).collect());
        }
        if let Self::Read(held) = self {
            let room = (MOST_BUCKETS + 2).saturating_sub(held.len());
            held.extend(more.take(room));
        }
        Ok(())
    }

    fn values(&self, into: &mut Vec<u64>) -> Result<(), BadWire> {
        match self {
            Self::Packed(value) => into.extend(fixed64s(*value)?.take(MOST_BUCKETS + 2)),
            Self::Read(values) => into.extend(values),
        }
        Ok(())
    }
}

/// The points of one resource.
pub(super) struct Scope<'a> {
    /// What of its attributes may name a backend.
    resource: Identity<'a>,
    /// Whom the resource alone names.
    member: Result<u32, PointRefusal>,
    /// Which process it is.
    source: u64,
}

impl<'a> Scope<'a> {
    pub(super) fn new(resource: &[Label<'a>], collector: &mut Collector<'_>) -> Self {
        if resource.len() > MOST_LABELS {
            let member = Err(PointRefusal::TooManyLabels);
            return Self { resource: Identity::default(), member, source: 0 };
        }
        let identity = collector.identity(resource);
        let member = collector.find(&Identity::default(), &identity);
        let source = collector.source(resource, member.ok());
        Self { resource: identity, member, source }
    }

    /// Tells a metric that no engine has, and its first point.
    pub(super) fn note_unknown(
        &self,
        name: &str,
        kind: u32,
        point: &Data<'_>,
        labels: &[Label<'_>],
        collector: &mut Collector<'_>,
    ) {
        let value = match point.number {
            Some(Number::Double(value)) => value,
            Some(Number::Integer(value)) => value as f64,
            None => 0.0,
        };
        let kind = match kind {
            GAUGE => "gauge",
            SUM => "counter",
            _ => "histogram",
        };
        if point.flags & NO_RECORDED_VALUE == 0 && labels.len() <= MOST_LABELS {
            let own = collector.identity(labels);
            collector.note_unknown(name, kind, value, &own, &self.resource);
        }
    }

    /// Takes one point of a known metric.
    pub(super) fn take(
        &self,
        shape: Shape<'_>,
        data: Data<'_>,
        labels: &mut [Label<'_>],
        collector: &mut Collector<'_>,
    ) -> Result<(), RequestRefusal> {
        let too_many = PointRefusal::TooManyLabels;
        if labels.len() > MOST_LABELS || self.member == Err(too_many) {
            return collector.refuse(1, too_many, || shape.known.series.to_owned());
        }
        let own = collector.identity(labels);
        let member = match own.is_empty() {
            true => self.member,
            false => collector.find(&own, &self.resource),
        };
        let member = match member {
            Ok(member) => member,
            Err(refusal) => return collector.refuse_unnamed(1, refusal, &own, &self.resource),
        };
        let known = shape.known;
        let value = match value(&data, shape, collector)? {
            Ok(value) => value,
            Err(refusal) => return collector.refuse(1, refusal, || known.series.to_owned()),
        };
        match collector.series(known, labels) {
            Ok(series) => {
                let [at_ms, started_ms] = [data.at_ns, data.started_ns]
                    .map(|time_ns| i64::try_from(time_ns / 1_000_000).unwrap_or(i64::MAX));
                (collector.batch.source, collector.batch.started_ms) = (self.source, started_ms);
                collector.add(member, series, at_ms, shape, value)
            }
            Err(refusal) => collector.refuse(1, refusal, || known.series.to_owned()),
        }
    }
}

fn value(
    data: &Data<'_>,
    shape: Shape<'_>,
    collector: &mut Collector<'_>,
) -> Result<Result<PointValue, PointRefusal>, BadWire> {
    let known = shape.known;
    if data.flags & NO_RECORDED_VALUE != 0 {
        return Ok(Ok(PointValue::Ended));
    }
    if let Some(spread) = &data.spread {
        return histogram(spread, shape, collector);
    }
    Ok(match data.number {
        Some(Number::Double(value)) => Ok(PointValue::Number(value * known.factor)),
        Some(Number::Integer(value)) => Ok(PointValue::Number(value as f64 * known.factor)),
        None => Err(PointRefusal::NoValue),
    })
}

fn histogram(
    spread: &Spread<'_>,
    Shape { known, has_buckets, .. }: Shape<'_>,
    collector: &mut Collector<'_>,
) -> Result<Result<PointValue, PointRefusal>, BadWire> {
    let sum = spread.sum.map(|sum| sum * known.factor);
    let count = spread.count as f64;
    if !has_buckets {
        return Ok(Ok(PointValue::Histogram { sum, count, buckets: 0..0, trimmed: false }));
    }
    if let Some(exponential) = &spread.exponential {
        return Ok(match exponential.cumulative(known.factor) {
            Some(edges) => {
                let buckets = collector.batch.add_buckets(edges);
                Ok(PointValue::Histogram { sum, count, buckets, trimmed: true })
            }
            None => Err(PointRefusal::BadHistogram),
        });
    }
    let (mut counts, mut bounds) = (Vec::new(), Vec::new());
    spread.counts.values(&mut counts)?;
    spread.bounds.values(&mut bounds)?;
    if counts.is_empty() && bounds.is_empty() {
        return Ok(Ok(PointValue::Histogram { sum, count, buckets: 0..0, trimmed: false }));
    }
    let bounds: Vec<f64> = bounds.into_iter().map(|bits| f64::from_bits(bits) * known.factor).collect();
    let rising = bounds.is_sorted_by(|left, right| left < right);
    if counts.len() != bounds.len() + 1 || bounds.len() > MOST_BUCKETS || !rising {
        return Ok(Err(PointRefusal::BadHistogram));
    }
    let mut below = 0.0;
    let cumulative = bounds.into_iter().chain([f64::INFINITY]).zip(counts).map(|(bound, count)| {
        below += count as f64;
        (bound, below)
    });
    let buckets = collector.batch.add_buckets(cumulative);
    Ok(Ok(PointValue::Histogram { sum, count, buckets, trimmed: false }))
}
