use std::fmt::Write as _;

use super::super::batch::{Batch, Growth, Point, PointValue};
use super::super::exponential::whole;

/// From here on not every whole number is one of floating point.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// What a series is at.
#[derive(Clone, Debug)]
pub(super) enum Held {
    Number { value: f64, growth: Growth },
    Histogram(Box<Histogram>),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    sum: Option<f64>,
    count: f64,
    /// Upper bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
}

impl Held {
    /// What the first point of a series says.
    pub(super) fn new(batch: &Batch, point: &Point) -> Self {
        let mut held = match point.value {
            PointValue::Histogram { .. } => Self::Histogram(Box::default()),
            _ => Self::Number { value: 0.0, growth: point.growth },
        };
        held.update(batch, point);
        held
    }

    /// Whether it tells what is now, and nothing of before.
    pub(super) fn is_gauge(&self) -> bool {
        matches!(self, Self::Number { growth: Growth::None, .. })
    }

    /// Buckets, and lines on a page.
    pub(super) fn size(&self) -> (usize, usize) {
        match self {
            Self::Number { .. } => (0, 1),
            Self::Histogram(histogram) => (histogram.buckets.len(), histogram.buckets.len() + 2),
        }
    }

    /// Whether a point says less than what is held, of what counts since its server started.
    pub(super) fn falls(&self, point: &Point) -> bool {
        point.growth == Growth::SinceStart
            && match (self, &point.value) {
                (Self::Number { value, growth: Growth::SinceStart }, PointValue::Number(now)) => now < value,
                (Self::Histogram(held), PointValue::Histogram { count, .. }) => *count < held.count,
                _ => false,
            }
    }

    /// The same before anything was counted.
    pub(super) fn at_start(&self) -> Self {
        match self {
            Self::Number { growth, .. } => Self::Number { value: 0.0, growth: *growth },
            Self::Histogram(held) => Self::Histogram(Box::new(Histogram {
                sum: held.sum.map(|_| 0.0),
                count: 0.0,
                buckets: held.buckets.iter().map(|(bound, _)| (*bound, 0.0)).collect(),
            })),
        }
    }

    /// Becomes as another one, in the memory that it has.
    pub(super) fn set(&mut self, other: &Self) {
        match (self, other) {
            (Self::Histogram(held), Self::Histogram(other)) => {
                (held.sum, held.count) = (other.sum, other.count);
                held.buckets.clone_from(&other.buckets);
            }
            (held, other) => *held = other.clone(),
        }
    }

    /// Adds what another one counts; where the sum cannot be, it stays as it is.
    pub(super) fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Number { value, .. }, Self::Number { value: more, .. }) if is_count(*value + more) => {
                *value += more;
            }
            (Self::Histogram(held), Self::Histogram(more)) if held.can_add(more.sum, more.count) => {
                held.add(more.sum, more.count, &more.buckets);
            }
            _ => {}
        }
    }

    pub(super) fn update(&mut self, batch: &Batch, point: &Point) {
        match (self, &point.value) {
            (Self::Number { value, growth: Growth::SinceBefore }, PointValue::Number(more))
                if point.growth == Growth::SinceBefore =>
            {
                // It begins anew where the sum cannot be.
                *value = if is_count(*value + more) { *value + more } else { *more };
            }
            (held, PointValue::Number(value)) => {
                *held = Self::Number { value: *value, growth: point.growth };
            }
            (held, PointValue::Histogram { sum, count, buckets, trimmed }) => {
                let mut buckets = batch.buckets(buckets);
                let all_edges: Vec<(f64, f64)>;
                if *trimmed {
                    all_edges = whole(buckets, *count);
                    buckets = &all_edges;
                }
                match held {
                    Self::Histogram(histogram) if point.growth == Growth::SinceBefore => {
                        histogram.add(*sum, *count, buckets);
                    }
                    Self::Histogram(histogram) => {
                        (histogram.sum, histogram.count) = (*sum, *count);
                        histogram.buckets.clear();
                        histogram.buckets.extend_from_slice(buckets);
                    }
                    held => {
                        let buckets = buckets.to_vec();
                        *held = Self::Histogram(Box::new(Histogram { sum: *sum, count: *count, buckets }));
                    }
                }
            }
            (_, PointValue::Ended) => {}
        }
    }

    /// Writes it as a page has it; `source` becomes a label.
    pub(super) fn write(&self, series: &str, source: Option<u64>, page: &mut String) {
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or(labels)),
            None => (series, ""),
        };
        match self {
            Self::Number { value, .. } => line(page, (name, ""), labels, source, None, *value),
            Self::Histogram(held) => {
                for (bound, count) in &held.buckets {
                    line(page, (name, "_bucket"), labels, source, Some(*bound), *count);
                }
                if let Some(sum) = held.sum {
                    line(page, (name, "_sum"), labels, source, None, sum);
                }
                line(page, (name, "_count"), labels, source, None, held.count);
            }
        }
    }
}

impl Histogram {
    /// Whether what comes can be added to what is held.
    fn can_add(&self, sum: Option<f64>, count: f64) -> bool {
        is_count(self.count + count) && self.sum.zip(sum).is_none_or(|(held, more)| is_count(held + more))
    }

    /// Adds what came since the point before. Other bounds than before begin anew, which is seen as a restart.
    fn add(&mut self, sum: Option<f64>, count: f64, buckets: &[(f64, f64)]) {
        let is_first = self.count == 0.0 && self.buckets.is_empty();
        let same = self.buckets.len() == buckets.len()
            && self.buckets.iter().zip(buckets).all(|(held, more)| held.0 == more.0);
        if is_first || !same || !self.can_add(sum, count) {
            *self = Self { sum, count, buckets: buckets.to_vec() };
            return;
        }
        self.sum = self.sum.zip(sum).map(|(held, more)| held + more);
        self.count += count;
        for (held, more) in self.buckets.iter_mut().zip(buckets) {
            held.1 += more.1;
        }
    }
}

/// Whether a sum still notices one more.
fn is_count(sum: f64) -> bool {
    sum.abs() < EXACT
}

fn line(
    page: &mut String,
    (name, end): (&str, &str),
    labels: &str,
    source: Option<u64>,
    bound: Option<f64>,
    value: f64,
) {
    // Writing to a string does not fail.
    let _ = write!(page, "{name}{end}{{{labels}");
    let mut comma = if labels.is_empty() { "" } else { "," };
    if let Some(source) = source {
        let _ = write!(page, "{comma}clairvoy_source=\"{source:x}\"");
        comma = ",";
    }
    if let Some(bound) = bound {
        let _ = match bound.is_infinite() {
            true => write!(page, "{comma}le=\"+Inf\""),
            false => write!(page, "{comma}le=\"{bound}\""),
        };
    }
    let _ = writeln!(page, "}} {value}");
}
