//! Learn: keeps the forecasters fed, fitted and saved, on a thread of its own.
//!
//! [`Learner`] is plain state: lessons in, insights out, no clock and no I/O. [`spawn`] runs it on a thread that nothing
//! which serves waits for; when that thread is behind, the fleet is led by the newest insights there are.

mod alarm;
mod anomaly;
mod backends;
mod capacity;
mod checkpoint;
mod demand;
#[cfg(test)]
mod tests;
mod thread;
mod wait;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{
    CapacityEstimate, DemandForecast, FleetFits, LatencyTarget, Standing, WaitForecast,
};

use crate::config::Forecast;
use crate::decide::Signs;
use crate::envoy::FirstBytes;
use crate::fleet::{Findings, Step};
use crate::telemetry::Sample;

pub use thread::{LearnerHandle, spawn};

/// The key under which the one fit of the fleet is kept.
const FLEET_KEY: &str = "all";

/// What the learner is told.
#[derive(Debug)]
pub enum Lesson {
    /// A backend of this class showed itself.
    Sample(SocketAddr, Arc<Class>, Box<Sample>),
    /// Envoys saw first bytes from a backend.
    FirstBytes(SocketAddr, Vec<FirstBytes>),
    /// A backend is gone.
    Forget(SocketAddr),
    /// A step of a model's demand is over.
    Step(String, Step),
    /// Past demand of a model, to be trained on whole: the number of the first step, and requests/s by step.
    History(String, i64, Vec<Option<f64>>),
    /// Past demand of a model, of which a restored model may know a part already: the same form.
    CatchUp(String, i64, Vec<Option<f64>>),
    /// A saved model: kind, key and state, as they came in [`Insight::Trained`].
    Restore(ModelKind, String, serde_json::Value),
    /// A second has passed.
    Tick(DateTime<Utc>),
    /// All that decisions depend on is to be told, as [`Insight::Checkpoint`].
    Checkpoint,
}

/// What the backends of a pool have in common: they are each other's peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Class {
    /// The pool.
    pub pool: String,
    /// What requests are promised there.
    pub target: LatencyTarget,
}

/// How far a wait was off its forecast.
#[derive(Clone, Copy, Debug)]
struct Residual {
    /// In units of the error that was expected; positive when the first token came late.
    errors: f64,
    /// When the outcome was known, Unix seconds.
    at_seconds: f64,
}

/// What the learner found.
#[derive(Debug)]
pub enum Insight {
    /// The wait of the next request at a backend, and when the sample behind it was taken.
    Wait(SocketAddr, DateTime<Utc>, WaitForecast),
    /// A forecast of a model's demand, made at the end of its origin step, and how those before it have done.
    Forecast(String, DemandForecast, Vec<Standing>),
    /// The rate of requests at which a backend keeps its model's objective.
    Capacity(SocketAddr, CapacityEstimate),
    /// What is found wrong with a backend, by itself and among its peers; told when it changes.
    Anomaly(SocketAddr, Findings),
    /// Scores of what is found of a backend at this moment, as far as decisions depend on them; told when they change.
    Signs(SocketAddr, Signs),
    /// A model was fitted; its state is worth keeping.
    Trained {
        /// What was fitted.
        kind: ModelKind,
        /// Model name or backend address.
        key: String,
        /// Its state.
        state: serde_json::Value,
        /// When.
        at: DateTime<Utc>,
    },
    /// A saved model or a history could not be used.
    Refused(String),
    /// All that decisions depend on, after the lessons so far: packed JSON for [`Learner::resume`].
    Checkpoint(Vec<u8>),
}

/// Kinds of learned models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Demand of one model.
    Demand,
    /// What the demand of all models has in common; there is one.
    Fleet,
    /// Wait at one backend.
    Wait,
    /// Capacity of one backend.
    Capacity,
    /// What one backend usually shows.
    Anomaly,
}

impl ModelKind {
    /// The kind's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Demand => "demand",
            Self::Fleet => "demand_fleet",
            Self::Wait => "wait",
            Self::Capacity => "capacity",
            Self::Anomaly => "anomaly",
        }
    }
}

/// All learned models of the fleet.
pub struct Learner {
    settings: demand::Settings,
    demand: BTreeMap<String, demand::Lessons>,
    fleet: Option<FleetFits>,
    fleet_fitted_at: Option<DateTime<Utc>>,
    backends: backends::Backends,
}

impl Learner {
    /// Nothing learned yet.
    pub fn new(forecast: &Forecast) -> Self {
        Self {
            settings: demand::Settings::of(forecast),
            demand: BTreeMap::new(),
            fleet: None,
            fleet_fitted_at: None,
            backends: backends::Backends::default(),
        }
    }

    /// Takes one lesson.
    pub fn learn(&mut self, lesson: Lesson) -> Vec<Insight> {
        match lesson {
            Lesson::Sample(address, class, sample) => self.backends.observe(address, &class, &sample),
            Lesson::FirstBytes(address, first_bytes) => {
                self.backends.observe_first_bytes(address, &first_bytes);
                Vec::new()
            }
            Lesson::Forget(address) => {
                self.backends.forget(address);
                Vec::new()
            }
            Lesson::Step(model, step) => self.step(model, step),
            Lesson::History(model, first_step, values) => self.history(model, first_step, &values),
            Lesson::CatchUp(model, first_step, values) => match self.demand.get_mut(&model) {
                Some(lessons) => {
                    let forecast = lessons.catch_up(first_step, &values);
                    vec![Insight::Forecast(model, forecast, lessons.standings())]
                }
                None if values.is_empty() => Vec::new(),
                None => self.history(model, first_step, &values),
            },
            Lesson::Restore(kind, key, state) => self.restore(kind, key, state),
            Lesson::Tick(now) => self.tick(now),
            Lesson::Checkpoint => self.checkpoint().map(Insight::Checkpoint).into_iter().collect(),
        }
    }

    fn step(&mut self, model: String, step: Step) -> Vec<Insight> {
        if !self.demand.contains_key(&model) {
            match demand::Lessons::train(&self.settings, step.index, &[]) {
                Ok(lessons) => self.take_in(model.clone(), lessons),
                Err(error) => return vec![Insight::Refused(format!("no forecast for {model}: {error}"))],
            }
        }
        let Some(lessons) = self.demand.get_mut(&model) else { return Vec::new() };
        let forecast = lessons.observe(step);
        vec![Insight::Forecast(model, forecast, lessons.standings())]
    }

    fn history(&mut self, model: String, first_step: i64, values: &[Option<f64>]) -> Vec<Insight> {
        match demand::Lessons::train(&self.settings, first_step, values) {
            Ok(lessons) => {
                let insight = Insight::Forecast(model.clone(), lessons.forecast(), lessons.standings());
                self.take_in(model, lessons);
                vec![insight]
            }
            Err(error) => vec![Insight::Refused(format!("the history of {model} cannot be used: {error}"))],
        }
    }

    fn restore(&mut self, kind: ModelKind, key: String, state: serde_json::Value) -> Vec<Insight> {
        let refused = |error: String| {
            vec![Insight::Refused(format!("saved {} model of {key}: {error}", kind.as_str()))]
        };
        match kind {
            ModelKind::Demand => match demand::Lessons::restore(&self.settings, state) {
                Ok(lessons) => {
                    let insight = Insight::Forecast(key.clone(), lessons.forecast(), lessons.standings());
                    self.take_in(key, lessons);
                    vec![insight]
                }
                Err(error) => refused(error),
            },
            ModelKind::Fleet => match serde_json::from_value(state) {
                Ok(fleet) => {
                    self.share(fleet);
                    Vec::new()
                }
                Err(error) => refused(error.to_string()),
            },
            ModelKind::Wait | ModelKind::Capacity | ModelKind::Anomaly => {
                self.backends.restore(kind, &key, state).map_or_else(refused, |()| Vec::new())
            }
        }
    }

    fn take_in(&mut self, model: String, mut lessons: demand::Lessons) {
        if let Some(fleet) = &self.fleet {
            lessons.adopt(fleet);
        }
        self.demand.insert(model, lessons);
    }

    /// Hands what the fleet has in common to everyone.
    fn share(&mut self, fleet: FleetFits) {
        self.demand.values_mut().for_each(|lessons| lessons.adopt(&fleet));
        self.fleet = Some(fleet);
    }

    fn fit_fleet_when_due(&mut self, now: DateTime<Utc>) -> Option<Insight> {
        let at = *self.fleet_fitted_at.get_or_insert(now);
        if (now - at).as_seconds_f64() < self.settings.fleet_every_seconds() || self.demand.is_empty() {
            return None;
        }
        self.fleet_fitted_at = Some(now);
        let fleet = FleetFits::fit(self.demand.values().map(demand::Lessons::forecaster));
        let state = serde_json::to_value(&fleet).ok();
        self.share(fleet);
        let (kind, key) = (ModelKind::Fleet, FLEET_KEY.to_owned());
        Some(Insight::Trained { kind, key, state: state?, at: now })
    }

    fn tick(&mut self, now: DateTime<Utc>) -> Vec<Insight> {
        let mut insights: Vec<Insight> = self.fit_fleet_when_due(now).into_iter().collect();
        for (model, lessons) in &mut self.demand {
            if let Some(state) = lessons.refit_when_due(&self.settings, now) {
                insights.push(Insight::Trained {
                    kind: ModelKind::Demand,
                    key: model.clone(),
                    state,
                    at: now,
                });
            }
        }
        insights.extend(self.backends.tick(now));
        insights
    }
}
