use super::super::batch::{Batch, Point, PointValue};
use super::held::Held;
use super::source::{COUNTER_LASTS_MS, GAUGE_LASTS_MS, Moment, Series, Side, Source};
use super::{SAME_READING_MS, SetBack};

/// Most senders of one backend that are held apart; beyond it the one that has been silent for longest is forgotten.
const MOST_SOURCES: usize = 64;
/// Most bytes of a backend's series in memory.
const MOST_BYTES: usize = 1024 * 1024;
/// Most bytes of the page that they are written as, which repeats the labels of a histogram with each bucket.
const MOST_PAGE_BYTES: usize = 4 * 1024 * 1024;
/// A series beside its name and its buckets.
const SERIES_BYTES: usize = 192;
/// A line of the page beside the series' name: the end of the name, the sender, the edge and the value.
const LINE_BYTES: usize = 80;

/// The newest value of every series of one backend, by sender.
///
/// A reading is compared with the one before over the same series: one that comes, ends, falls silent, comes back or is
/// forgotten changes no sum by what it has counted long ago.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    sources: Vec<Source>,
    count: usize,
    bytes: Bytes,
    /// Series that the reading before had were forgotten.
    lost: bool,
    /// A sender began anew while others went on.
    restarted: bool,
}

/// What series take, about.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Bytes {
    held: usize,
    page: usize,
}

impl Bytes {
    fn of(name: &str, value: &Held) -> Self {
        let (buckets, lines) = value.size();
        // Buckets are held as they are and as they were at the reading before.
        Self {
            held: SERIES_BYTES + name.len() + 2 * buckets * size_of::<(f64, f64)>(),
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

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken { evicted: usize },
    Late,
}

impl SeriesTable {
    /// Takes a point, unless its series has one that is not older.
    pub(super) fn take(&mut self, batch: &Batch, point: &Point, max_series: usize, now_ms: i64) -> Outcome {
        let name = batch.series(point);
        let goes_on = self.sources.len() > 1;
        if let Some(source) = self.sources.iter_mut().find(|source| source.key == point.source)
            && let Some(series) = source.series.get_mut(name)
        {
            if point.at_ms <= series.at_ms {
                return Outcome::Late;
            }
            self.bytes.take(Bytes::of(name, &series.value));
            if point.value == PointValue::Ended && series.value.is_gauge() {
                source.series.remove(name);
                self.count -= 1;
                self.lost = true;
                return Outcome::Taken { evicted: 0 };
            }
            self.restarted |= series.update(batch, point, goes_on);
            self.bytes.add(Bytes::of(name, &series.value));
            source.hear(point.at_ms, SAME_READING_MS, now_ms);
            return Outcome::Taken { evicted: self.evict_bytes() };
        }
        if point.value == PointValue::Ended {
            return Outcome::Late;
        }
        let mut evicted = if self.count >= max_series { self.evict() } else { 0 };
        evicted += self.admit(point, now_ms);
        if let Some(source) = self.sources.iter_mut().find(|source| source.key == point.source) {
            source.hear(point.at_ms, SAME_READING_MS, now_ms);
            source.insert(name, batch, point);
            self.count += 1;
            if let Some(series) = source.series.get(name) {
                self.bytes.add(Bytes::of(name, &series.value));
            }
        }
        Outcome::Taken { evicted: evicted + self.evict_bytes() }
    }

    /// Makes room for the sender of a point; returns how many series were forgotten for it.
    fn admit(&mut self, point: &Point, now_ms: i64) -> usize {
        if self.sources.iter().any(|source| source.key == point.source) {
            return 0;
        }
        let mut evicted = 0;
        if self.sources.len() >= MOST_SOURCES {
            let longest = self.sources.iter().enumerate().min_by_key(|(_, source)| source.heard_ms);
            if let Some(index) = longest.map(|(index, _)| index) {
                let gone = self.sources.swap_remove(index);
                evicted = gone.series.len();
                self.count -= evicted;
                gone.series.iter().for_each(|(name, series)| self.bytes.take(Bytes::of(name, &series.value)));
                self.lost = true;
            }
        }
        self.sources.push(Source::new(point.source, point, now_ms));
        evicted
    }

    /// Whether the sender of a point is part of the reading that is coming in.
    pub(super) fn is_in_reading(&self, point: &Point) -> bool {
        self.sources.iter().any(|source| source.key == point.source && source.in_reading)
    }

    /// Notes that the sender of a point is part of it.
    pub(super) fn join_reading(&mut self, point: &Point) {
        if let Some(source) = self.sources.iter_mut().find(|source| source.key == point.source) {
            source.in_reading = true;
        }
    }

    /// Forgets the oldest series until the rest is within its bytes.
    fn evict_bytes(&mut self) -> usize {
        let mut evicted = 0;
        while self.bytes.is_too_much() && self.count > 0 {
            evicted += self.evict();
        }
        evicted
    }

    /// Forgets the oldest quarter at once, so that a flood of series costs each of them little.
    fn evict(&mut self) -> usize {
        let all = self.sources.iter().flat_map(|source| source.series.values());
        let mut times: Vec<i64> = all.map(|series| series.at_ms).collect();
        let quarter = (times.len() / 4).max(1).min(times.len());
        let Some(last) = quarter.checked_sub(1) else { return 0 };
        let limit = *times.select_nth_unstable(last).1;
        let mut left = quarter;
        self.remove(|_, series| {
            let goes = series.at_ms <= limit && left > 0;
            left -= usize::from(goes);
            goes
        })
    }

    /// About the bytes of a page of all series.
    pub(super) fn page_bytes(&self) -> usize {
        self.bytes.page
    }

    /// Follows the own clock.
    pub(super) fn set_back(&mut self, by: SetBack) {
        self.sources.iter_mut().for_each(|source| source.set_back(by));
    }

    /// Whether a gauge was not sent for that long before a reading.
    pub(super) fn has_silent_gauge(&self, at_ms: i64, for_ms: i64) -> bool {
        let all = self.sources.iter().flat_map(|source| source.series.values());
        all.filter(|series| series.value.is_gauge()).any(|series| {
            let silent_ms = at_ms - series.at_ms;
            silent_ms >= for_ms && silent_ms <= 2 * GAUGE_LASTS_MS
        })
    }

    /// Forgets series; returns how many.
    fn remove(&mut self, mut goes: impl FnMut(&str, &Series) -> bool) -> usize {
        let (bytes, before) = (&mut self.bytes, self.count);
        for source in &mut self.sources {
            let held = source.series.len();
            source.series.retain(|name, series| {
                let goes = goes(name, series);
                if goes {
                    bytes.take(Bytes::of(name, &series.value));
                }
                !goes
            });
            let gone = held - source.series.len();
            self.count -= gone;
            source.forgot |= gone > 0;
        }
        let gone = before - self.count;
        self.lost |= gone > 0;
        gone
    }

    /// Whether the reading before was made of other series than the one of this moment.
    pub(super) fn has_changed(&self, moment: Moment) -> bool {
        self.lost || self.sources.iter().any(|source| source.has_changed(moment))
    }

    /// Writes the series of a reading as a metrics page, as they are or as they were at the reading before.
    pub(super) fn write_page(&self, moment: Moment, side: Side, page: &mut String) {
        for source in &self.sources {
            let label = (self.sources.len() > 1).then_some(source.key);
            source.write(moment, side, label, page);
        }
    }

    /// Notes that a reading is over, and forgets what is long gone; returns whether a sender began anew while others went on.
    pub(super) fn settle(&mut self, moment: Moment) -> bool {
        self.sources.iter_mut().for_each(|source| source.settle(moment));
        self.lost = false;
        let is_gone = |series: &Series| moment.at_ms - series.at_ms > COUNTER_LASTS_MS;
        let forgot: Vec<bool> = self.sources.iter().map(|source| source.forgot).collect();
        if self.remove(|_, series| series.value.is_gauge() && is_gone(series)) > 0 {
            // They were part of no reading since, and do not count.
            self.lost = false;
            self.sources.iter_mut().zip(forgot).for_each(|(source, forgot)| source.forgot = forgot);
        }
        self.sources.retain(|source| !source.series.is_empty());
        std::mem::take(&mut self.restarted)
    }
}
