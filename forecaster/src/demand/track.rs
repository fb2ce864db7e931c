use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::linear::LinearFit;
use crate::quantiles::{QUANTILES, Quantiles};

use super::blend::{Blend, Experience, Temper};
use super::bounds::{Bounds, Candidates, Care, OUTER};
use super::config::Grid;
use super::experts::{Expert, Origin, Points};
use super::features::{Features, hour_steps};
use super::history::History;
use super::record::Record;
use super::regression::{Measure, Regression, predict};

/// Forecasts of one horizon that wait for their outcome, at most: of a longer horizon only every second, third, …
/// is scored, as neighbours miss nearly the same.
const PENDING_MAX: u32 = 48;

/// Everything about one horizon: its regressions, what every expert forecast, and how that went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    horizon_steps: u32,
    regression: Option<Regression>,
    experience: Experience,
    bounds: Bounds,
    record: Record,
    pending: VecDeque<Pending>,
    issued: Issued,
}

/// A forecast as it went out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Issued {
    pub(super) quantiles: Quantiles,
    /// The expert with the most weight, if any has something to say.
    pub(super) champion: Option<Expert>,
}

/// A forecast whose target is still to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    target_step: i64,
    points: Points,
    blend: f32,
    gradient: f32,
    usual: f32,
    candidates: Candidates,
    quantiles: Quantiles,
}

/// What all horizons share when a step is taken in.
pub(super) struct Now<'a> {
    pub(super) history: &'a History,
    pub(super) grid: Grid,
    pub(super) origin: Origin,
    pub(super) measure: Option<&'a Measure>,
}

impl Track {
    pub(super) fn new(horizon_steps: u32) -> Self {
        Self {
            horizon_steps,
            regression: None,
            experience: Experience::new(),
            bounds: Bounds::new(),
            record: Record::default(),
            pending: VecDeque::new(),
            issued: Issued::default(),
        }
    }

    pub(super) fn horizon_steps(&self) -> u32 {
        self.horizon_steps
    }

    pub(super) fn issued(&self) -> &Issued {
        &self.issued
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    pub(super) fn refit(&mut self, history: &History, measure: Option<&Measure>, grid: Grid) {
        let features = self.features(grid);
        self.regression = measure.and_then(|measure| Regression::fit(history, measure, &features));
    }

    pub(super) fn features(&self, grid: Grid) -> Features {
        Features::new(grid, self.horizon_steps)
    }

    /// Takes in the newest step of the history: scores what was forecast for it, and issues the next forecast.
    pub(super) fn observe(&mut self, now: &Now<'_>, fleet: Option<&LinearFit>) {
        let newest = now.history.newest_step();
        while let Some(due) = self.pending.pop_front_if(|pending| pending.target_step <= newest) {
            if let Some(actual) = now.history.known(due.target_step) {
                self.score(&due, actual, now.grid);
            }
        }
        if let (Some(own), Some(measure)) = (&mut self.regression, now.measure) {
            own.learn(now.history, measure, &Features::new(now.grid, self.horizon_steps));
        }
        let pending = self.issue(now, fleet);
        if newest.rem_euclid(i64::from(self.stride())) == 0 {
            self.pending.push_back(pending);
        }
    }

    /// Issues the forecast of the newest step once more.
    pub(super) fn reissue(&mut self, now: &Now<'_>, fleet: Option<&LinearFit>) {
        let pending = self.issue(now, fleet);
        if let Some(last) = self.pending.back_mut().filter(|last| last.target_step == pending.target_step) {
            *last = pending;
        }
    }

    /// Drops the forecasts that are still open, as after a gap longer than the history.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.issued = Issued::default();
    }

    pub(super) fn is_sound(&self) -> bool {
        self.regression.as_ref().is_none_or(Regression::is_sound)
            && self.experience.is_sound()
            && self.bounds.is_sound()
    }

    /// Returns each expert that spoke last, with its weight and its recent absolute error, the heaviest first.
    pub(super) fn standings(&self, grid: Grid) -> Vec<(Expert, f64, Option<f64>)> {
        let blend =
            self.pending.back().and_then(|last| self.experience.blend(&last.points, &self.temper(grid)));
        let mut weights = blend.map(|blend| blend.weights).unwrap_or_default();
        weights.sort_by(|a, b| b.1.total_cmp(&a.1));
        weights.into_iter().map(|(expert, weight)| (expert, weight, self.experience.recent(expert))).collect()
    }

    fn issue(&mut self, now: &Now<'_>, fleet: Option<&LinearFit>) -> Pending {
        let (history, grid) = (now.history, now.grid);
        let horizon = i64::from(self.horizon_steps);
        let mut points = now.origin.points(history, horizon, hour_steps(grid));
        let regressions = self.regress(now, fleet);
        for (expert, quantiles) in [Expert::Regression, Expert::FleetRegression].into_iter().zip(regressions)
        {
            points.set(expert, quantiles.map(|quantiles| quantiles.median()));
        }
        points.close();

        let temper = self.temper(grid);
        let last = points.get(Expert::LastValue).unwrap_or(0.0);
        let blend = self.experience.blend(&points, &temper).unwrap_or_else(|| Blend {
            point: last,
            gradient: last,
            weights: points.get(Expert::LastValue).map(|_| (Expert::LastValue, 1.0)).into_iter().collect(),
        });
        let gate = self.record.gate().and_then(|expert| Some((expert, points.get(expert)?)));
        let heaviest = blend.weights.iter().max_by(|a, b| a.1.total_cmp(&b.1)).map(|(expert, _)| *expert);
        let (median, champion) = match gate {
            Some((expert, point)) => (point, Some(expert)),
            None => (blend.point, heaviest),
        };

        let usual = history.mean(history.newest_step(), history.season()).unwrap_or(0.0);
        let candidates = self.bounds.candidates(median, usual, history, regressions);
        let outer = self.bounds.bounds(median, &candidates, Care::new(grid.season_steps, self.horizon_steps));
        let mut values = [median; QUANTILES.len()];
        OUTER.into_iter().zip(outer).for_each(|(place, bound)| values[place] = bound);
        let quantiles = if champion.is_some() { Quantiles::new(values) } else { Quantiles::default() };
        self.issued = Issued { quantiles, champion };
        let target_step = history.newest_step() + horizon;
        Pending {
            target_step,
            points,
            blend: blend.point as f32,
            gradient: blend.gradient as f32,
            usual: usual as f32,
            candidates,
            quantiles,
        }
    }

    fn regress(&self, now: &Now<'_>, fleet: Option<&LinearFit>) -> [Option<Quantiles>; 2] {
        let sight = self.features(now.grid).look(now.history, now.history.newest_step());
        let (Some(sight), Some(measure)) = (sight, now.measure) else { return [None; 2] };
        let own = self.regression.as_ref().and_then(|own| own.predict(&sight, measure));
        [own, fleet.and_then(|fleet| predict(fleet, &sight, measure))]
    }

    fn score(&mut self, due: &Pending, actual: f64, grid: Grid) {
        let stride = self.stride();
        self.experience.score(&due.points, due.gradient.into(), actual, &self.temper(grid));
        let care = Care::new(grid.season_steps, self.horizon_steps);
        let (median, usual) = (due.quantiles.median(), f64::from(due.usual));
        self.bounds.score(actual, median, usual, &due.candidates, &due.quantiles, care, stride);
        let baselines = Expert::BASELINES.map(|expert| due.points.get(expert));
        self.record.score(actual, due.blend.into(), &due.quantiles, baselines, grid.season_steps, stride);
    }

    fn temper(&self, grid: Grid) -> Temper {
        Temper::new(grid.season_steps, self.horizon_steps, self.stride())
    }

    fn stride(&self) -> u32 {
        self.horizon_steps.div_ceil(PENDING_MAX)
    }
}
