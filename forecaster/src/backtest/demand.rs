use std::ops::Range;

use crate::demand::{DemandConfig, DemandForecaster, FleetFits};
use crate::{Error, Quantiles};

/// Seasons before the first fit.
const FIRST_FIT_SEASONS: usize = 2;

/// One series: its name and, for each step, the mean rate or `None` where it is unknown.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name of the model whose demand it is.
    pub name: String,
    /// Rates by step.
    pub values: Vec<Option<f64>>,
}

/// How to run a backtest.
#[derive(Debug, Clone, PartialEq)]
pub struct Backtest {
    /// Grid and horizons.
    pub config: DemandConfig,
    /// Steps that are known before the first origin.
    pub train_steps: usize,
    /// Steps between two origins, for horizons of more than two steps; the nearest two are wanted at every origin, as
    /// replicas are planned by them.
    pub every_steps: usize,
}

/// One forecast that was issued.
#[derive(Debug, Clone, PartialEq)]
pub struct Issue {
    /// Place of the series.
    pub series: usize,
    /// Steps known when it was issued: the steps `0..origin`.
    pub origin: usize,
    /// How far ahead the target ends, in steps.
    pub horizon_steps: u32,
    /// The steps whose mean rate is forecast.
    pub target: Range<usize>,
    /// What was forecast.
    pub quantiles: Quantiles,
}

impl Issue {
    /// Returns what came: the mean of the target's steps, as far as they are known.
    pub fn actual(&self, series: &[Series]) -> Option<f64> {
        let known = series.get(self.series)?.values.get(self.target.clone())?.iter().flatten();
        let count = known.clone().count();
        (count > 0).then(|| known.sum::<f64>() / count as f64)
    }
}

impl Backtest {
    /// Returns whether all horizons are forecast from an origin, and scored.
    pub(super) fn is_scored(&self, origin: usize) -> bool {
        let after = origin.checked_sub(self.train_steps);
        after.is_some_and(|after| after.is_multiple_of(self.every_steps.max(1)))
    }
}

/// Runs the forecaster over all series side by side, as it would have run live: every step is forecast before it is
/// shown, regressions are fitted anew once a season, and the fleet's among them.
///
/// `progress` is told how many steps are done, of how many.
///
/// # Errors
///
/// Those of [`DemandConfig::validate`].
pub fn backtest(
    series: &[Series],
    how: &Backtest,
    mut progress: impl FnMut(usize, usize),
) -> Result<Vec<Issue>, Error> {
    let season = how.config.grid.season_steps as usize;
    let steps = series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    let models = series.iter().map(|_| DemandForecaster::train(&how.config, 0, &[]));
    let mut models = models.collect::<Result<Vec<_>, _>>()?;
    let mut issues = Vec::new();
    for origin in 0..steps {
        progress(origin, steps);
        if origin >= how.train_steps {
            let all = how.is_scored(origin);
            for (place, (model, series)) in models.iter().zip(series).enumerate() {
                let known = series.values.len();
                issues.extend(model.forecast().points.iter().filter_map(|point| {
                    let target = usize::try_from(point.target_step).ok()?;
                    let target = target..target + point.target_steps as usize;
                    let wanted = all || point.horizon_steps <= 2;
                    (wanted && target.end <= known).then_some(Issue {
                        series: place,
                        origin,
                        horizon_steps: point.horizon_steps,
                        target,
                        quantiles: point.quantiles,
                    })
                }));
            }
        }
        if origin >= FIRST_FIT_SEASONS * season && origin.is_multiple_of(season) {
            models.iter_mut().for_each(DemandForecaster::refit);
            let fleet = FleetFits::fit(&models);
            models.iter_mut().for_each(|model| model.adopt(&fleet));
        }
        for (model, series) in models.iter_mut().zip(series) {
            if let Some(value) = series.values.get(origin) {
                model.observe(origin as i64, *value);
            }
        }
    }
    progress(steps, steps);
    Ok(issues)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::demand::Grid;

    fn series(count: usize, steps: usize) -> impl Strategy<Value = Vec<Series>> {
        let value = prop_oneof![6 => (0.0..100.0).prop_map(Some), 1 => Just(None), 1 => Just(Some(0.0))];
        let values = prop::collection::vec(value, steps);
        let named = |values| Series { name: "m".into(), values };
        prop::collection::vec(values.prop_map(named), count)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn nothing_after_the_origin_is_known(
            mut all in series(3, 180),
            noise in series(3, 180),
            season in prop_oneof![Just(6_u32), Just(24), Just(144)],
            origin in 65_usize..170,
        ) {
            let grid = Grid { step_seconds: 600, season_steps: season };
            let config = DemandConfig { grid, horizons: vec![1, 2, 5, season, 2 * season] };
            let how = Backtest { config, train_steps: 60, every_steps: 1 };
            let until = |issues: Vec<Issue>| {
                issues.into_iter().filter(|issue| issue.origin <= origin).collect::<Vec<_>>()
            };
            let before = until(backtest(&all, &how, |_, _| {}).unwrap());
            for (series, noise) in all.iter_mut().zip(noise) {
                series.values[origin..].copy_from_slice(&noise.values[origin..]);
            }
            let after = until(backtest(&all, &how, |_, _| {}).unwrap());
            prop_assert!(before.iter().any(|issue| issue.origin == origin));
            prop_assert_eq!(before, after);
        }
    }
}
