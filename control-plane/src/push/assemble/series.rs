use std::collections::HashMap;
use std::fmt::Write as _;

use super::super::batch::{Batch, Growth, Point, PointValue};

/// Gauges older than this at the time of a reading are not part of it: their sender has stopped.
const GAUGE_LASTS_MS: i64 = 5_000;
/// Counters stand still while nothing happens, and some senders then say nothing; beyond this they are forgotten.
const COUNTER_LASTS_MS: i64 = 300_000;

/// Most bytes of a backend's series in memory.
const MOST_BYTES: usize = 1024 * 1024;
/// Most bytes of the page that they are written as, which repeats the labels of a histogram with each bucket.
const MOST_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// A series beside its name and its buckets.
const SERIES_BYTES: usize = 128;
/// A line of the page beside the series' name: the end of the name, the edge and the value.
const LINE_BYTES: usize = 48;

/// The newest value of every series of one backend.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    series: HashMap<Box<str>, Series>,
    bytes: Bytes,
}

/// What series take, about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bytes {
    held: usize,
    page: usize,
}

impl Bytes {
    fn of(name: &str, value: &Held) -> Self {
        let (buckets, lines) = match value {
            Held::Number { .. } => (0, 1),
            Held::Histogram(histogram) => (histogram.buckets.len(), histogram.buckets.len() + 2),
        };
        Self {
            held: SERIES_BYTES + name.len() + buckets * size_of::<(f64, f64)>(),
            page: lines * (LINE_BYTES + name.len()),
        }
    }

    fn add(&mut self, other: Self) {
        self.held += other.held;
        self.page += other.page;
    }

    fn take(&mut self, other: Self) {
        self.held = self.held.saturating_sub(other.held);
        self.page = self.page.saturating_sub(other.page);
    }

    fn is_too_much(self) -> bool {
        self.held > MOST_BYTES || self.page > MOST_PAGE_BYTES
    }
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
            self.bytes.take(Bytes::of(name, &series.value));
            if point.value == PointValue::Ended {
                self.series.remove(name);
                return Outcome::Taken { evicted: 0 };
            }
            series.at_ms = point.at_ms;
            series.value.update(batch, point);
            self.bytes.add(Bytes::of(name, &series.value));
            return Outcome::Taken { evicted: self.evict_bytes() };
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
        self.bytes.add(Bytes::of(name, &value));
        self.series.insert(name.into(), Series { at_ms: point.at_ms, value });
        Outcome::Taken { evicted: evicted + self.evict_bytes() }
    }

    /// Forgets the oldest series until the rest is within its bytes.
    fn evict_bytes(&mut self) -> usize {
        let mut evicted = 0;
        while self.bytes.is_too_much() && !self.series.is_empty() {
            evicted += self.evict();
        }
        evicted
    }

    /// Forgets the oldest quarter at once, so that a flood of series costs each of them little.
    fn evict(&mut self) -> usize {
        let before = self.series.len();
        let mut times: Vec<i64> = self.series.values().map(|series| series.at_ms).collect();
        let quarter = (before / 4).max(1);
        let (_, limit, _) = times.select_nth_unstable(quarter - 1);
        let limit = *limit;
        let mut left = quarter;
        let bytes = &mut self.bytes;
        self.series.retain(|name, series| {
            let goes = series.at_ms <= limit && left > 0;
            if goes {
                left -= 1;
                bytes.take(Bytes::of(name, &series.value));
            }
            !goes
        });
        before - self.series.len()
    }

    /// Whether a gauge was not sent for that long before a reading.
    pub(super) fn has_silent_gauge(&self, at_ms: i64, for_ms: i64) -> bool {
        self.series.values().any(|series| {
            let gauge = matches!(series.value, Held::Number { growth: Growth::None, .. });
            gauge && at_ms - series.at_ms >= for_ms && at_ms - series.at_ms <= 2 * GAUGE_LASTS_MS
        })
    }

    /// Writes the series as a metrics page of that time, and forgets those that are long gone.
    pub(super) fn write_page(&mut self, at_ms: i64, page: &mut String) {
        let bytes = &mut self.bytes;
        self.series.retain(|name, series| {
            let lasts = at_ms - series.at_ms <= COUNTER_LASTS_MS;
            if !lasts {
                bytes.take(Bytes::of(name, &series.value));
            }
            lasts
        });
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
