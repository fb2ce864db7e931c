use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::linear::LinearFit;
use crate::quantiles::{QUANTILES, Quantiles};

use super::bounds::{Bounds, Candidates, Centre, OUTER};
use super::config::Grid;
use super::experts::{Expert, Origin, Points};
use super::features::{Features, hour_steps};
use super::history::History;
use super::jury::{Jury, Verdict};
use super::record::Record;
use super::regression::{self, Measure, predict};
use super::settings::Settings;
use super::young::{Anchor, Young};

/// Everything about one horizon: its regressions, what every expert forecast, and how that went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Track {
    horizon_steps: u32,
    regression: Option<LinearFit>,
    experts: Jury,
    bounds: Bounds,
    record: Record,
    pending: VecDeque<Pending>,
    issued: Issued,
    /// Until a season is known.
    young: Option<Young>,
}

/// A forecast as it went out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Issued {
    pub(super) quantiles: Quantiles,
    /// The expert with the most weight, if any has something to say.
    pub(super) champion: Option<Expert>,
    anchor: Option<Anchor>,
}

/// A forecast whose target is still to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pending {
    target_step: i64,
    points: Points,
    blend: f32,
    /// The blend without an anchor.
    verdict: f32,
    gradient: f32,
    centre: Centre,
    candidates: Candidates,
    quantiles: [f32; QUANTILES.len()],
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
            experts: Jury::new(Expert::COUNT),
            bounds: Bounds::new(),
            record: Record::default(),
            pending: VecDeque::new(),
            issued: Issued::default(),
            young: Some(Young::default()),
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
        // What is so far ahead is left to the fleet's.
        let measure = measure.filter(|_| !self.settings(grid).far);
        let features = self.features(grid);
        self.regression = measure.and_then(|measure| regression::fit(history, measure, &features));
    }

    pub(super) fn features(&self, grid: Grid) -> Features {
        Features::new(grid, self.horizon_steps)
    }

    /// Takes in the newest step of the history: scores what was forecast for it, and issues the next forecast.
    pub(super) fn observe(&mut self, now: &Now<'_>, fleet: Option<&LinearFit>) {
        let newest = now.history.newest_step();
        while let Some(due) = self.pending.pop_front_if(|pending| pending.target_step <= newest) {
            if let Some(actual) = now.history.known(due.target_step) {
                self.score(&due, actual, now);
            }
        }
        if now.history.len() < now.history.season() {
            self.young.get_or_insert_default().learn(now.history, self.horizon_steps.into());
        } else if self.young.take().is_some() {
            for expert in [Expert::Calmed, Expert::Autoregression] {
                self.experts.forget(expert as usize);
            }
        }
        let pending = self.issue(now, fleet);
        if newest.rem_euclid(i64::from(self.settings(now.grid).stride)) == 0 {
            if self.pending.len() == self.pending.capacity() {
                self.pending.reserve_exact(1 + self.pending.len() / 8);
            }
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

    #[cfg(test)]
    pub(super) fn regression_mut(&mut self) -> Option<&mut LinearFit> {
        self.regression.as_mut()
    }

    /// Drops the forecasts that are still open, as after a gap longer than the history.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
        self.issued = Issued::default();
    }

    pub(super) fn is_sound(&self) -> bool {
        self.regression.as_ref().is_none_or(LinearFit::is_sound)
            && self.experts.has(Expert::COUNT)
            && self.bounds.is_sound()
            && self.young.as_ref().is_none_or(Young::is_sound)
    }

    /// Returns each expert that spoke last, with its weight and its recent loss, the heaviest first.
    pub(super) fn standings(&self, grid: Grid) -> Vec<(Expert, f64, Option<f64>)> {
        let settings = self.settings(grid);
        let verdict = self.pending.back().map(|last| self.verdict(&last.points, &settings));
        let weights = verdict.map(|verdict| verdict.weights).unwrap_or_default();
        let mut weights = anchored(weights, self.issued.anchor);
        weights.sort_by(|a, b| b.1.total_cmp(&a.1));
        let standing =
            |(place, weight): (usize, f64)| (Expert::ALL[place], weight, self.experts.lasting(place));
        weights.into_iter().map(standing).collect()
    }

    fn issue(&mut self, now: &Now<'_>, fleet: Option<&LinearFit>) -> Pending {
        let (history, settings) = (now.history, self.settings(now.grid));
        let horizon = i64::from(self.horizon_steps);
        let mut points = now.origin.points(history, horizon, hour_steps(now.grid));
        let [own, fleet] = self.regress(now, fleet);
        if !settings.far {
            points.set(Expert::Regression, own.map(|quantiles| quantiles.median()));
        }
        let regression = if settings.far { fleet } else { own.or(fleet) };
        points.set(Expert::Autoregression, self.young.as_ref().and_then(|young| young.point(history)));
        points.close();

        let grown = history.len() >= history.season();
        let verdict = self.verdict(&points, &settings);
        let anchor = self.young.as_ref().and_then(|young| young.anchor(&points));
        let blend = anchor.map_or(verdict.point, |Anchor { expert, share }| {
            (1.0 - share) * verdict.point + share * points.get(expert).unwrap_or(verdict.point)
        });
        let gate = self.record.gate().and_then(|expert| Some((expert, points.get(expert)?)));
        let weights = anchored(verdict.weights, anchor);
        let heaviest = weights.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (median, champion) = match gate {
            Some((expert, point)) => (point, Some(expert)),
            None => (blend, heaviest.map(|(place, _)| Expert::ALL[*place])),
        };

        let usual = history.mean(history.newest_step(), history.season()).unwrap_or(0.0);
        let disagreement = points.disagreement() as f32;
        let centre = Centre { median: median as f32, usual: usual as f32, disagreement, grown };
        let (candidates, outer) = self.bounds.bounds(&centre, now, regression, &settings);
        let mut values = [median; QUANTILES.len()];
        OUTER.into_iter().zip(outer).for_each(|(place, bound)| values[place] = bound);
        let quantiles = if champion.is_some() { Quantiles::new(values) } else { Quantiles::default() };
        self.issued = Issued { quantiles, champion, anchor };
        let target_step = history.newest_step() + horizon;
        let [blend, verdict, gradient] = [blend, verdict.point, verdict.gradient].map(|point| point as f32);
        let quantiles = quantiles.values().map(|value| value as f32);
        Pending { target_step, points, blend, verdict, gradient, centre, candidates, quantiles }
    }

    /// What the experts make of it together; before any was scored often enough, the last value alone.
    fn verdict(&self, points: &Points, settings: &Settings) -> Verdict {
        self.experts.blend(points.as_slice(), &settings.median).unwrap_or_else(|| {
            let last = points.get(Expert::LastValue);
            let weights = last.map(|_| (Expert::LastValue as usize, 1.0)).into_iter().collect();
            let last = last.unwrap_or(0.0);
            Verdict { point: last, gradient: last, weights }
        })
    }

    /// What the regressions say: the series' own, and the fleet's.
    fn regress(&self, now: &Now<'_>, fleet: Option<&LinearFit>) -> [Option<Quantiles>; 2] {
        let sight = self.features(now.grid).look(now.history, now.history.newest_step());
        let (Some(sight), Some(measure)) = (sight, now.measure) else { return [None; 2] };
        [self.regression.as_ref(), fleet].map(|lines| predict(lines?, &sight, measure))
    }

    fn score(&mut self, due: &Pending, actual: f64, now: &Now<'_>) {
        let settings = self.settings(now.grid);
        let issued = Quantiles::new(due.quantiles.map(f64::from));
        let unit = now.origin.unit;
        if let (Some(young), Some(moved)) = (&mut self.young, due.points.get(Expert::Autoregression)) {
            let misses = [due.verdict.into(), moved].map(|point: f64| (actual - point).abs() * unit);
            young.score(misses, settings.keep_young);
        }
        self.experts.score(due.points.as_slice(), due.gradient.into(), actual, unit, &settings.median);
        self.bounds.score(actual, unit, &due.centre, &due.candidates, &issued, &settings);
        let baselines = Expert::BASELINES.map(|expert| due.points.get(expert));
        let independent = f64::from(settings.stride) / f64::from(self.horizon_steps);
        let (blend, keep) = (due.blend.into(), settings.keep_record);
        self.record.score(actual, blend, &issued, baselines, keep, independent);
    }

    fn settings(&self, grid: Grid) -> Settings {
        Settings::new(grid, self.horizon_steps)
    }
}

/// The weights of a blend, by place, when its median rests on an anchor, too.
fn anchored(mut weights: Vec<(usize, f64)>, anchor: Option<Anchor>) -> Vec<(usize, f64)> {
    let Some(Anchor { expert, share }) = anchor else { return weights };
    weights.iter_mut().for_each(|(_, weight)| *weight *= 1.0 - share);
    match weights.iter_mut().find(|(place, _)| *place == expert as usize) {
        Some((_, weight)) => *weight += share,
        None => weights.push((expert as usize, share)),
    }
    weights
}
