//! Recorded demand, replayed faster and at another scale.
//!
//! A [`Replay`] cuts a [`DemandSeries`] at one of its windows. What lies before the cut becomes the history a forecaster
//! may learn from; what lies after it is the load that a player sends. One recorded window of ten minutes
//! takes one forecast step (ten seconds in the demo), so a recorded day of [`SEASON_WINDOWS`] windows takes 24 minutes.

mod series;

use std::fmt::Write as _;

pub use self::series::{DemandSeries, RequestSize, SeriesError, heavy_request_sizes, request_sizes};

/// Windows of ten minutes in a recorded day: the season of a replayed series, in steps.
pub const SEASON_WINDOWS: usize = 144;

/// Recorded demand on the wall clock: window `start_window` lasts from `anchor_unix_s` to one step later.
#[derive(Debug, Clone)]
pub struct Replay {
    series: DemandSeries,
    start_window: usize,
    scale: f64,
    step_seconds: u32,
    anchor_unix_s: i64,
}

impl Replay {
    /// Places `series` on the wall clock. Every rate is multiplied by `scale`, and every window lasts `step_seconds`.
    ///
    /// # Errors
    ///
    /// When the series has no window `start_window`, when `scale` is not a positive number, or when `anchor_unix_s`
    /// is not a whole number of steps.
    pub fn new(
        series: DemandSeries,
        start_window: usize,
        scale: f64,
        step_seconds: u32,
        anchor_unix_s: i64,
    ) -> Result<Self, SeriesError> {
        if start_window >= series.len() {
            return Err(SeriesError::NoWindow { window: start_window, len: series.len() });
        }
        if !(scale.is_finite() && scale > 0.0) {
            return Err(SeriesError::Scale(scale));
        }
        if step_seconds == 0 || anchor_unix_s.rem_euclid(i64::from(step_seconds)) != 0 {
            return Err(SeriesError::Anchor { anchor_unix_s, step_seconds });
        }
        Ok(Self { series, start_window, scale, step_seconds, anchor_unix_s })
    }

    /// Returns the rows `timestamp_s,model,rps` (no header) of the steps that start in `from_unix_s..until_unix_s`,
    /// oldest first. Steps whose window was not recorded are left out, and so are steps before the series.
    pub fn csv_rows(&self, model: &str, from_unix_s: i64, until_unix_s: i64) -> String {
        let step = i64::from(self.step_seconds);
        let first = (from_unix_s - self.anchor_unix_s).div_euclid(step);
        let last = (until_unix_s - self.anchor_unix_s).div_euclid(step);
        let mut rows = String::new();
        for offset in first..last {
            if let Some(rps) = self.recorded(offset) {
                let timestamp_s = self.anchor_unix_s + offset * step;
                // Writing to a string cannot fail.
                let _ = writeln!(rows, "{timestamp_s},{model},{rps:.4}");
            }
        }
        rows
    }

    /// Returns the demand at a moment in requests per second: linear between the middles of the recorded windows.
    pub fn rate_rps(&self, unix_s: f64) -> f64 {
        let position = (unix_s - self.anchor_unix_s as f64) / f64::from(self.step_seconds) - 0.5;
        let left = position.floor();
        let weight = position - left;
        let left = left as i64;
        self.filled(left) * (1.0 - weight) + self.filled(left + 1) * weight
    }

    /// Returns an upper bound of [`Self::rate_rps`] over `seconds` from `unix_s`.
    pub fn peak_rps(&self, unix_s: f64, seconds: f64) -> f64 {
        let step = f64::from(self.step_seconds);
        let first = ((unix_s - self.anchor_unix_s as f64) / step - 0.5).floor() as i64;
        let last = ((unix_s + seconds - self.anchor_unix_s as f64) / step - 0.5).floor() as i64 + 1;
        (first..=last).map(|offset| self.filled(offset)).fold(0.0, f64::max)
    }

    /// The scaled rate of the window `offset` windows after the cut, or nothing where nothing was recorded.
    fn recorded(&self, offset: i64) -> Option<f64> {
        let window = usize::try_from(self.start_window as i64 + offset).ok()?;
        Some(self.series.get(window)? * self.scale)
    }

    /// As [`Self::recorded`], with gaps filled from the days before. After the end of the series the last day repeats.
    fn filled(&self, offset: i64) -> f64 {
        let len = self.series.len() as i64;
        let season = SEASON_WINDOWS as i64;
        let mut window = self.start_window as i64 + offset;
        if window >= len {
            window -= ((window - len) / season + 1) * season;
        }
        while window >= 0 {
            if let Some(rps) = usize::try_from(window).ok().and_then(|window| self.series.get(window)) {
                return rps * self.scale;
            }
            window -= season;
        }
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANCHOR: i64 = 1_700_000_000;

    fn large() -> Replay {
        Replay::new(DemandSeries::large().unwrap(), 1697, 0.19, 10, ANCHOR).unwrap()
    }

    #[test]
    fn history_ends_at_the_cut_and_leaves_gaps_out() {
        let rows = large().csv_rows("chat-large", ANCHOR - 14_400, ANCHOR);
        let last = rows.lines().last().unwrap();
        assert_eq!(last, format!("{},chat-large,9.1073", ANCHOR - 10));
        assert!(rows.lines().count() < 1440, "the outage before the cut is not in the history");
        assert!(rows.lines().count() > 1300);
    }

    #[test]
    fn demand_doubles_within_a_minute() {
        let replay = large();
        let (before, after) = (replay.rate_rps(ANCHOR as f64), replay.rate_rps(ANCHOR as f64 + 60.0));
        assert!((9.0..11.0).contains(&before) && (20.0..24.0).contains(&after), "{before} to {after}");
    }

    #[test]
    fn the_last_day_repeats_after_the_end() {
        let replay = large();
        let end = ANCHOR as f64 + (2016.0 - 1697.0) * 10.0;
        assert_eq!(replay.rate_rps(end + 305.0), replay.rate_rps(end + 305.0 - 1440.0));
    }

    #[test]
    fn a_cut_outside_the_series_is_refused() {
        let error = Replay::new(DemandSeries::small().unwrap(), 9999, 1.0, 10, ANCHOR).unwrap_err();
        assert!(error.to_string().contains("9999"), "{error}");
    }

    proptest! {
        #[test]
        fn the_rate_never_exceeds_its_bound(start in 0.0..20_000.0f64, seconds in 0.1..60.0f64, at in 0.0..1.0f64) {
            let replay = large();
            let start = ANCHOR as f64 + start;
            prop_assert!(replay.rate_rps(start + at * seconds) <= replay.peak_rps(start, seconds) + 1e-9);
        }
    }
}
