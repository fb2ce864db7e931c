use std::collections::{HashMap, HashSet};

use super::super::batch::{Batch, Growth, Point, PointValue};
use super::SetBack;
use super::held::Held;

/// Gauges that their sender leaves out for longer are not part of a reading.
pub(super) const GAUGE_LASTS_MS: i64 = 5_000;
/// A sender that is silent for this many of its intervals has stopped, and so have its gauges.
const MISSED_INTERVALS: f64 = 2.5;
/// Counters stand still while nothing happens, and some senders then say nothing; beyond this they are left out until they
/// come again.
pub(super) const COUNTER_LASTS_MS: i64 = 300_000;

/// A series whose start is not told may have been there before within this time after its sender was first heard.
const SETTLED_MS: i64 = 60_000;

/// The moment of a reading.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Time of its newest point.
    pub(super) at_ms: i64,
    /// When that came, by the own clock.
    pub(super) heard_ms: i64,
}

/// The newest value of every series of one sender.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) key: u64,
    /// Whether it is part of the reading that is coming in.
    pub(super) in_reading: bool,
    /// When it was heard, by the own clock.
    pub(super) heard_ms: i64,
    /// Time of its first point.
    since_ms: i64,
    newest_ms: i64,
    interval_ms: i64,
    /// Names that were part of a reading.
    names: HashSet<Box<str>>,
    /// Series were forgotten for want of room: one that seems new may have been there before.
    pub(super) forgot: bool,
    pub(super) series: HashMap<Box<str>, Series>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) at_ms: i64,
    pub(super) value: Held,
    /// What it counted before it fell, where that goes on counting.
    offset: Option<Held>,
    /// What it was at the reading before, which is what the next one is compared with; none: nothing is known of it, so
    /// nothing has been counted since.
    before: Option<Held>,
    /// Whether it was part of that reading.
    told: bool,
    /// Whether anything came since.
    touched: bool,
    ended: bool,
}

/// Which side of the comparison is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    Now,
}

impl Source {
    pub(super) fn new(key: u64, point: &Point, now_ms: i64) -> Self {
        Self {
            key,
            in_reading: false,
            heard_ms: now_ms,
            since_ms: point.at_ms,
            newest_ms: point.at_ms,
            interval_ms: 0,
            names: HashSet::new(),
            forgot: false,
            series: HashMap::new(),
        }
    }

    pub(super) fn hear(&mut self, at_ms: i64, same_reading_ms: i64, now_ms: i64) {
        self.heard_ms = now_ms;
        if at_ms - self.newest_ms >= same_reading_ms {
            self.interval_ms = at_ms - self.newest_ms;
        }
        self.newest_ms = self.newest_ms.max(at_ms);
    }

    /// Follows the own clock.
    pub(super) fn set_back(&mut self, by: SetBack) {
        for time_ms in [&mut self.heard_ms, &mut self.since_ms, &mut self.newest_ms] {
            by.apply(time_ms);
        }
        self.series.values_mut().for_each(|series| by.apply(&mut series.at_ms));
    }

    /// Adds a series that was not there. It counts from nothing if it began after its sender was first heard; so do
    /// increments.
    pub(super) fn insert(&mut self, name: &str, batch: &Batch, point: &Point) {
        let value = Held::new(batch, point);
        let from_nothing = match point.growth {
            Growth::None => false,
            Growth::SinceBefore => true,
            Growth::SinceStart => !self.forgot && self.has_begun_since(name, point),
        };
        let before = from_nothing.then(|| value.at_start());
        let at_ms = point.at_ms;
        let series = Series { at_ms, value, offset: None, before, told: false, touched: true, ended: false };
        self.series.insert(name.into(), series);
    }

    /// Whether a series that comes for the first time began after its sender was first heard. Where its start is not told,
    /// one whose name has long been part of readings has new labels.
    fn has_begun_since(&self, name: &str, point: &Point) -> bool {
        match point.started_ms {
            0 => self.names.contains(bare(name)) && point.at_ms - self.since_ms >= SETTLED_MS,
            // Those who do not know the start give the time of the first point, whatever was counted by then.
            started_ms => started_ms >= self.since_ms && started_ms < point.at_ms,
        }
    }

    fn lasts(&self, series: &Series, moment: Moment) -> bool {
        if !series.value.is_gauge() {
            return !series.ended && moment.at_ms - series.at_ms <= COUNTER_LASTS_MS;
        }
        let patience = (MISSED_INTERVALS * self.interval_ms as f64) as i64;
        self.newest_ms - series.at_ms <= GAUGE_LASTS_MS
            && moment.heard_ms - self.heard_ms <= patience.clamp(GAUGE_LASTS_MS, COUNTER_LASTS_MS)
    }

    /// Whether other series are part of a reading than of the one before.
    pub(super) fn has_changed(&self, moment: Moment) -> bool {
        self.series.values().any(|series| self.lasts(series, moment) != series.told)
    }

    /// Writes the series of a reading, as they are or as they were at the reading before.
    pub(super) fn write(&self, moment: Moment, side: Side, label: Option<u64>, page: &mut String) {
        for (name, series) in self.series.iter().filter(|(_, series)| self.lasts(series, moment)) {
            match (side, &series.before, &series.offset) {
                (Side::Before, Some(before), _) => before.write(name, label, page),
                (_, _, None) => series.value.write(name, label, page),
                (_, _, Some(_)) => series.total().write(name, label, page),
            }
        }
    }

    /// Notes that the reading is over.
    pub(super) fn settle(&mut self, moment: Moment) {
        let mut series = std::mem::take(&mut self.series);
        for (name, series) in &mut series {
            let lasts = self.lasts(series, moment);
            if lasts && series.before.is_none() && !self.names.contains(bare(name)) {
                self.names.insert(bare(name).into());
            }
            series.settle(lasts);
        }
        self.series = series;
        self.in_reading = false;
    }
}

impl Series {
    /// Takes a newer point. Where the value falls and others count beside it, what it counted so far is kept, and it goes on
    /// from there; returns whether that happened.
    pub(super) fn update(&mut self, batch: &Batch, point: &Point, goes_on: bool) -> bool {
        self.at_ms = point.at_ms;
        self.touched = true;
        self.ended = point.value == PointValue::Ended;
        let falls = goes_on && self.value.falls(point);
        if falls {
            self.offset = Some(self.total());
        }
        self.value.update(batch, point);
        falls
    }

    fn total(&self) -> Held {
        let mut total = self.value.clone();
        if let Some(offset) = &self.offset {
            total.add(offset);
        }
        total
    }

    fn settle(&mut self, lasts: bool) {
        self.told = lasts;
        if !lasts {
            // Counters are compared with what they were, however long that is ago.
            if self.value.is_gauge() {
                self.before = None;
            }
            return;
        }
        if !self.touched && self.before.is_some() {
            return;
        }
        self.touched = false;
        match (&mut self.before, &self.offset) {
            (Some(before), None) => before.set(&self.value),
            _ => self.before = Some(self.total()),
        }
    }
}

/// The name of a series without its labels.
fn bare(series: &str) -> &str {
    series.split_once('{').map_or(series, |(name, _)| name)
}
