use std::ops::Range;
use std::sync::Arc;

use super::assemble::SetBack;
use super::directory::Directory;

/// Most bytes of texts and buckets of the batches that wait, and so of one.
pub(super) const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Nothing is counted so far: from here on exporters say "not supported".
const BEYOND_COUNTING: f64 = 9.2e18;

/// The known points of one request, in one piece of memory each for texts and buckets.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) directory: Arc<Directory>,
    /// When it was decoded, by the own clock: a point without a time has this one.
    pub(super) decoded_ms: i64,
    pub(super) points: Vec<Point>,
    /// Who sends what is added next; 0 where that is not told.
    pub(super) source: u64,
    /// Since when what is added next counts, as [`Point::at_ms`]; 0 where that is not told.
    pub(super) started_ms: i64,
    /// The series' names and labels, as a metrics page has them.
    text: String,
    /// Upper bounds and cumulative counts.
    buckets: Vec<(f64, f64)>,
    /// Whether names that no engine has are wanted.
    pub(super) wants_unknown: bool,
    /// Such names, as far as they are wanted.
    pub(super) unknown: Vec<Unknown>,
    /// Bytes of those names.
    unknown_text: usize,
}

/// A name that no engine has.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unknown {
    /// Index of the backend in the directory.
    pub(super) member: u32,
    /// As a metrics page can have it.
    pub(super) name: Box<str>,
    /// As a metrics page declares it.
    pub(super) kind: &'static str,
    /// One of its values.
    pub(super) value: f64,
}

/// One point of one series of one backend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    /// Index in the directory.
    pub(super) member: u32,
    /// Who sent it, by what tells processes apart.
    pub(super) source: u64,
    series: Range<u32>,
    /// Milliseconds since 1970, by the sender's clock.
    pub(super) at_ms: i64,
    /// Since when it counts, by the same clock; 0 where that is not told.
    pub(super) started_ms: i64,
    pub(super) growth: Growth,
    pub(super) value: PointValue,
}

/// Since when a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    /// It does not count: it is what is now.
    None,
    /// Since the server started.
    SinceStart,
    /// Since the point before.
    SinceBefore,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PointValue {
    Number(f64),
    Histogram {
        /// None where the sender leaves it out.
        sum: Option<f64>,
        count: f64,
        buckets: Range<u32>,
        /// Whether these are those of an exponential histogram, without the edges that say nothing.
        trimmed: bool,
    },
    /// The sender says that the series has ended.
    Ended,
}

impl PointValue {
    /// Whether it can have been counted, by its last bucket too; what may fall again may also be negative.
    pub(super) fn is_countable(&self, batch: &Batch, may_fall: bool) -> bool {
        let is_count = |value: f64| (0.0..BEYOND_COUNTING).contains(&value);
        match self {
            Self::Number(value) => is_count(if may_fall { value.abs() } else { *value }),
            Self::Histogram { sum, count, buckets, .. } => {
                let buckets = batch.buckets(buckets);
                is_count(*count)
                    && sum.is_none_or(is_count)
                    && buckets.last().is_none_or(|(_, below)| is_count(*below))
            }
            Self::Ended => true,
        }
    }
}

impl Batch {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            decoded_ms: i64::MIN,
            points: Vec::new(),
            source: 0,
            started_ms: 0,
            text: String::new(),
            buckets: Vec::new(),
            wants_unknown: false,
            unknown: Vec::new(),
            unknown_text: 0,
        }
    }

    /// Bytes of texts and buckets.
    pub(super) fn bytes(&self) -> usize {
        let unknown = self.unknown.len() * size_of::<Unknown>() + self.unknown_text;
        self.text.len() + self.buckets.len() * size_of::<(f64, f64)>() + unknown
    }

    /// Bytes that it takes in memory, with its points and what is kept free for more.
    pub(super) fn memory(&self) -> usize {
        let unknown = self.unknown.capacity() * size_of::<Unknown>() + self.unknown_text;
        let points = self.points.capacity() * size_of::<Point>();
        self.text.capacity() + self.buckets.capacity() * size_of::<(f64, f64)>() + points + unknown
    }

    /// Adds a name that no engine has.
    pub(super) fn add_unknown(&mut self, unknown: Unknown) {
        self.unknown_text += unknown.name.len();
        self.unknown.push(unknown);
    }

    /// The series of a point.
    pub(super) fn series(&self, point: &Point) -> &str {
        self.text.get(point.series.start as usize..point.series.end as usize).unwrap_or_default()
    }

    /// The buckets of a histogram.
    pub(super) fn buckets(&self, range: &Range<u32>) -> &[(f64, f64)] {
        self.buckets.get(range.start as usize..range.end as usize).unwrap_or_default()
    }

    /// Appends the text of a series; none when the batch holds 4 GiB of them.
    pub(super) fn write_series(&mut self, write: impl FnOnce(&mut String)) -> Option<Range<u32>> {
        let start = u32::try_from(self.text.len()).ok()?;
        write(&mut self.text);
        Some(start..u32::try_from(self.text.len()).ok()?)
    }

    /// Takes back the newest text.
    pub(super) fn forget_series(&mut self, series: &Range<u32>) {
        self.text.truncate(series.start as usize);
    }

    pub(super) fn add(
        &mut self,
        member: u32,
        series: Range<u32>,
        at_ms: i64,
        growth: Growth,
        value: PointValue,
    ) {
        let (source, started_ms) = (self.source, self.started_ms);
        self.points.push(Point { member, source, series, at_ms, started_ms, growth, value });
    }

    pub(super) fn add_buckets(&mut self, buckets: impl IntoIterator<Item = (f64, f64)>) -> Range<u32> {
        let end = |buckets: &Vec<(f64, f64)>| u32::try_from(buckets.len()).unwrap_or(u32::MAX);
        let start = end(&self.buckets);
        self.buckets.extend(buckets);
        start..end(&self.buckets)
    }

    /// Follows the own clock.
    pub(super) fn set_back(&mut self, by: SetBack) {
        self.points.iter_mut().for_each(|point| by.apply(&mut point.at_ms));
    }

    /// Brings the points into the order of their times: a sender that catches up sends series by series.
    pub(super) fn sort(&mut self) {
        if !self.points.is_sorted_by_key(|point| point.at_ms) {
            self.points.sort_by_key(|point| point.at_ms);
        }
    }
}
