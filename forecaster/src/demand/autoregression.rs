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

/// Returns the newest rate, moved by what a median regression makes of the moves of the newest steps, as learned from
/// the origins before whose target is known.
pub(super) fn autoregression(history: &History, horizon: i64) -> Option<f64> {
    let newest = history.newest_step();
    let moves = |at: i64| {
        let level = history.value(at)?;
        let [near, middle, far] = LAGS.map(|lag| history.value(at - lag).map(|before| level - before));
        Some([near?, middle?, far?])
    };
    let mut rows = Rows::default();
    if SEASON_PARTS * horizon <= history.season() as i64 {
        for at in newest - horizon - STEPS..=newest - horizon {
            if let (Some(row), Some(level), Some(target)) =
                (moves(at), history.value(at), history.value(at + horizon))
            {
                // Rates fall as they climb: without this the climb of a morning would be taken to go on.
                rows.push(&row, target - level, 1.0);
                rows.push(&row.map(|moved| -moved), level - target, 1.0);
            }
        }
    }
    let fit = if rows.len() < ROWS_MIN { None } else { LinearFit::fit(&rows, RIDGE) }?;
    Some((history.value(newest)? + fit.predict(&moves(newest)?)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(rate: impl Fn(i64) -> f64) -> History {
        let mut history = History::new(-1, 500, 144);
        (0..60).for_each(|step| history.push(Some(rate(step))));
        history
    }

    #[test]
    fn a_climb_goes_on_and_a_zigzag_comes_back() {
        let climb = autoregression(&history(|step| 10.0 + step as f64), 3).unwrap();
        assert!((climb - 72.0).abs() < 0.5, "{climb}");
        let zigzag = autoregression(&history(|step| if step % 2 == 0 { 20.0 } else { 10.0 }), 1).unwrap();
        assert!((zigzag - 20.0).abs() < 2.0, "{zigzag}");
    }

    #[test]
    fn says_nothing_before_it_has_seen_enough_or_of_what_is_far() {
        let mut young = History::new(-1, 500, 144);
        (0..10).for_each(|step| young.push(Some(step as f64)));
        assert_eq!(autoregression(&young, 3), None);
        assert_eq!(autoregression(&history(|_| 5.0), 144), None);
    }
}
