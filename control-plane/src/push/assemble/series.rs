use std::collections::HashMap;
use std::fmt::Write as _;

use super::super::batch::{Batch, Growth, Point, PointValue};

/// Gauges older than this at the time of a reading are not part of it: their sender has stopped.
const GAUGE_LASTS_MS: i64 = 5_000;
/// Counters stand still while nothing happens, and some senders then say nothing; beyond this they are forgotten.
const COUNTER_LASTS_MS: i64 = 300_000;

/// The newest value of every series of one backend.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    series: HashMap<Box<str>, Series>,
}

#[derive(Debug)]
struct Series {
    at_ms: i64,
    value: Held,
}

#[derive(Debug)]
enum Held {
    Number { value: f64, growth: Growth },
    Histogram(Box<Histogram>),
}

#[derive(Debug, Default)]
struct Histogram {
    sum: Option<f64>,
    count: f64,
    /// Upper bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken { evicted: usize },
    Late,
}

impl SeriesTable {
    /// Takes a point, unless its series has one that is not older.
    pub(super) fn take(&mut self, batch: &Batch, point: &Point, max_series: usize) -> Outcome {
        let name = batch.series(point);
        if let Some(series) = self.series.get_mut(name) {
            if point.at_ms <= series.at_ms {
                return Outcome::Late;
            }
            if point.value == PointValue::Ended {
                self.series.remove(name);
                return Outcome::Taken { evicted: 0 };
            }
            series.at_ms = point.at_ms;
            series.value.update(batch, point);
            return Outcome::Taken { evicted: 0 };
        }
        if point.value == PointValue::Ended {
            return Outcome::Late;
        }
        let evicted = if self.series.len() >= max_series { self.evict() } else { 0 };
        let mut value = match point.value {
            PointValue::Histogram { .. } => Held::Histogram(Box::default()),
            _ => Held::Number { value: 0.0, growth: point.growth },
        };
        value.update(batch, point);
        self.series.insert(name.into(), Series { at_ms: point.at_ms, value });
        Outcome::Taken { evicted }
    }

    /// Forgets the oldest quarter at once, so that a flood of series costs each of them little.
    fn evict(&mut self) -> usize {
        let before = self.series.len();
        let mut times: Vec<i64> = self.series.values().map(|series| series.at_ms).collect();
        let quarter = (before / 4).max(1);
        let (_, limit, _) = times.select_nth_unstable(quarter - 1);
        let limit = *limit;
        let mut left = quarter;
        self.series.retain(|_, series| {
            let goes = series.at_ms <= limit && left > 0;
            left -= usize::from(goes);
            !goes
        });
        before - self.series.len()
    }

    /// Writes the series as a metrics page of that time, and forgets those that are long gone.
    pub(super) fn write_page(&mut self, at_ms: i64, page: &mut String) {
        self.series.retain(|_, series| at_ms - series.at_ms <= COUNTER_LASTS_MS);
        for (name, series) in &self.series {
            match &series.value {
                Held::Number { value, growth } => {
                    let lasts = if *growth == Growth::None { GAUGE_LASTS_MS } else { COUNTER_LASTS_MS };
                    if at_ms - series.at_ms <= lasts {
                        line(page, name, value);
                    }
                }
                Held::Histogram(histogram) => histogram.write(name, page),
            }
        }
    }
}

fn line(page: &mut String, series: &str, value: &f64) {
    // Writing to a string does not fail.
    let _ = writeln!(page, "{series} {value}");
}

impl Held {
    fn update(&mut self, batch: &Batch, point: &Point) {
        match (self, &point.value) {
            (Self::Number { value, growth: Growth::SinceBefore }, PointValue::Number(more))
                if point.growth == Growth::SinceBefore =>
            {
                *value += more;
            }
            (held, PointValue::Number(value)) => {
                *held = Self::Number { value: *value, growth: point.growth };
            }
            (held, PointValue::Histogram { sum, count, buckets }) => {
                let buckets = batch.buckets(buckets);
                match held {
                    Self::Histogram(histogram) if point.growth == Growth::SinceBefore => {
                        histogram.add(*sum, *count, buckets);
                    }
                    held => {
                        *held = Self::Histogram(Box::new(Histogram {
                            sum: *sum,
                            count: *count,
                            buckets: buckets.to_vec(),
                        }));
                    }
                }
            }
            (_, PointValue::Ended) => {}
        }
    }
}

impl Histogram {
    /// Adds what came since the point before. Other bounds than before begin anew, which is seen as a restart.
    fn add(&mut self, sum: Option<f64>, count: f64, buckets: &[(f64, f64)]) {
        let is_first = self.count == 0.0 && self.buckets.is_empty();
        let same = self.buckets.len() == buckets.len()
            && self.buckets.iter().zip(buckets).all(|(held, more)| held.0 == more.0);
        if is_first || !same {
            *self = Self { sum, count, buckets: buckets.to_vec() };
            return;
        }
        self.sum = self.sum.zip(sum).map(|(held, more)| held + more);
        self.count += count;
        for (held, more) in self.buckets.iter_mut().zip(buckets) {
            held.1 += more.1;
        }
    }

    fn write(&self, series: &str, page: &mut String) {
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or(labels)),
            None => (series, ""),
        };
        let mut part = |end: &str, bound: Option<f64>, value: f64| {
            // Writing to a string does not fail.
            let _ = write!(page, "{name}{end}{{{labels}");
            if let Some(bound) = bound {
                let comma = if labels.is_empty() { "" } else { "," };
                let _ = match bound.is_infinite() {
                    true => write!(page, "{comma}le=\"+Inf\""),
                    false => write!(page, "{comma}le=\"{bound}\""),
                };
            }
            let _ = writeln!(page, "}} {value}");
        };
        for (bound, count) in &self.buckets {
            part("_bucket", Some(*bound), *count);
        }
        if let Some(sum) = self.sum {
            part("_sum", None, sum);
        }
        part("_count", None, self.count);
    }
}
