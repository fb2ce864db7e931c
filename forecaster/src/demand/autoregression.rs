use serde::{Deserialize, Serialize};

use crate::linear::{LinearFit, Rows};

use super::history::History;

/// The newest steps that are learned from.
const STEPS: i64 = 288;

/// Moves that are looked at, from so many steps before to the newest.
const LAGS: [i64; 3] = [1, 3, 6];

/// The part of a season beyond which a target moves by the pattern of the season.
const SEASON_PARTS: i64 = 24;

/// Rows that are needed, two of each origin.
const ROWS_MIN: usize = 14;

/// Ridge penalty per row on standardised moves.
const RIDGE: f64 = 0.1;

/// The part of the mean rate in which moves are counted, so that a series in other units is forecast alike.
const UNIT_PART: f64 = 0.01;

/// How a series moves on after the moves of the newest steps: a median regression without intercept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Autoregression {
    fit: LinearFit,
    unit: f64,
}

impl Autoregression {
    /// Learns from the origins among the newest steps whose target is known.
    pub(super) fn fit(history: &History, horizon: i64) -> Option<Self> {
        let newest = history.newest_step();
        if SEASON_PARTS * horizon > history.season() as i64 {
            return None;
        }
        let unit = UNIT_PART * history.mean(newest, STEPS as usize)?;
        let mut rows = Rows::default();
        if unit <= 0.0 {
            return None;
        }
        for at in newest - horizon - STEPS..=newest - horizon {
            if let (Some(row), Some(level), Some(target)) =
                (moves(History::known, history, at, unit), history.known(at), history.known(at + horizon))
            {
                // Rates fall as they climb: without this the climb of a morning would be taken to go on.
                rows.push(&row, (target - level) / unit, 1.0);
                rows.push(&row.map(|moved| -moved), (level - target) / unit, 1.0);
            }
        }
        let fit = if rows.len() < ROWS_MIN { None } else { LinearFit::fit(&rows, RIDGE) }?;
        Some(Self { fit, unit })
    }

    /// Returns the newest rate, moved on.
    pub(super) fn point(&self, history: &History) -> Option<f64> {
        let newest = history.newest_step();
        let moved = self.unit * self.fit.predict(&moves(History::value, history, newest, self.unit)?);
        Some((history.value(newest)? + moved).max(0.0)).filter(|point| point.is_finite())
    }

    pub(super) fn is_sound(&self) -> bool {
        self.fit.is_sound() && self.unit.is_finite()
    }
}

/// The moves up to a step, in units.
fn moves(
    rate: fn(&History, i64) -> Option<f64>,
    history: &History,
    at: i64,
    unit: f64,
) -> Option<[f64; LAGS.len()]> {
    let level = rate(history, at)?;
    let [near, middle, far] = LAGS.map(|lag| rate(history, at - lag).map(|before| (level - before) / unit));
    Some([near?, middle?, far?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(rate: impl Fn(i64) -> f64) -> History {
        let mut history = History::new(-1, 500, 144);
        (0..60).for_each(|step| history.push(Some(rate(step))));
        history
    }

    fn point(history: &History, horizon: i64) -> Option<f64> {
        Autoregression::fit(history, horizon)?.point(history)
    }

    #[test]
    fn a_climb_goes_on_and_a_zigzag_comes_back() {
        let climb = point(&history(|step| 10.0 + step as f64), 3).unwrap();
        assert!((climb - 72.0).abs() < 0.5, "{climb}");
        let zigzag = point(&history(|step| if step % 2 == 0 { 20.0 } else { 10.0 }), 1).unwrap();
        assert!((zigzag - 20.0).abs() < 2.0, "{zigzag}");
    }

    #[test]
    fn the_unit_does_not_matter() {
        let rate = |step: i64| 5.0 + (step as f64 * 0.3).sin() + 0.4 * (step as f64 * 1.7).cos();
        let one = point(&history(rate), 3).unwrap();
        for unit in [1e-6, 1e5] {
            let other = point(&history(|step| unit * rate(step)), 3).unwrap() / unit;
            assert!((other / one - 1.0).abs() < 1e-3, "{other} at {unit}, {one}");
        }
    }

    #[test]
    fn a_gap_teaches_no_stillness() {
        let mut climbing = History::new(-1, 500, 144);
        (0..60).for_each(|step| climbing.push((!(20..45).contains(&step)).then_some(10.0 + step as f64)));
        let climb = point(&climbing, 3).unwrap();
        assert!((climb - 72.0).abs() < 0.7, "{climb}");
    }

    #[test]
    fn says_nothing_before_it_has_seen_enough_or_of_what_is_far() {
        let mut young = History::new(-1, 500, 144);
        (0..10).for_each(|step| young.push(Some(step as f64)));
        assert_eq!(point(&young, 3), None);
        assert_eq!(point(&history(|_| 5.0), 144), None);
        assert_eq!(point(&history(|_| 0.0), 1), None);
    }
}
