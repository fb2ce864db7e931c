use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::Deserialize;

use crate::config::Config;
use crate::learn::{Insight, Learner, Lesson};
use crate::run::{Checkpoint, Core, Effect, Input, Pending, decisive};
use crate::store::DecisionRow;

use super::bounds;
use super::row::{Kind, Row, Scope};

/// Time between two ticks where the file has none: that of the live controller.
const TICK: TimeDelta = TimeDelta::seconds(1);
/// Ticks that are made between two samples; in a longer silence nothing is decided that has not been by then.
const MOST_TICKS: u32 = 3600;

/// Why rows cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A checkpoint of another version.
    #[error("a checkpoint cannot be taken up: {0}; replay it with the clairvoy that recorded it")]
    Checkpoint(#[source] serde_json::Error),
    /// A row that no Clairvoy has written.
    #[error("the file says what cannot be: {0}; export it again")]
    Impossible(String),
    /// Rows before what they need.
    #[error("the file has inputs before any checkpoint or configuration: give one with --config")]
    NoBeginning,
}

/// What a replay went through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples taken in.
    pub samples: u64,
    /// Ticks of the clock.
    pub ticks: u64,
    /// Decisions that count.
    pub decisions: u64,
    /// The first of what the file says is missing, in words.
    pub missing: Option<String>,
    /// Findings of the learner that the record names and this learner did not have: something is missing, or differs.
    pub not_found: u64,
}

/// The controller's core and the learner, on the clock of a file.
pub struct Replay {
    /// Instead of what was in force.
    other: Option<Arc<Config>>,
    scope: Option<Scope>,
    parts: Option<(Core, Learner)>,
    waits: VecDeque<Insight>,
    forecasts: VecDeque<Insight>,
    signs: VecDeque<Insight>,
    now: DateTime<Utc>,
    next_tick: Option<DateTime<Utc>>,
    tally: Tally,
}

#[derive(Deserialize)]
struct State {
    at: DateTime<Utc>,
    core: serde_json::Value,
    pending: Vec<Pending>,
    learner: serde_json::Value,
}

impl Replay {
    /// A replay of what was in force, or of another configuration.
    #[must_use]
    pub fn new(other: Option<Config>) -> Self {
        Self {
            other: other.map(|config| Arc::new(decisive(&config))),
            scope: None,
            parts: None,
            waits: VecDeque::new(),
            forecasts: VecDeque::new(),
            signs: VecDeque::new(),
            now: DateTime::UNIX_EPOCH,
            next_tick: None,
            tally: Tally::default(),
        }
    }

    /// What it went through so far.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What the file holds, once that was read.
    #[must_use]
    pub fn scope(&self) -> Option<&Scope> {
        self.scope.as_ref()
    }

    /// Takes the next row; returns what is decided.
    ///
    /// # Errors
    /// A checkpoint of another version; inputs before any checkpoint or configuration; times and settings that cannot be.
    pub fn take(&mut self, row: Row) -> Result<Vec<DecisionRow>, ReplayError> {
        let mut decided = Vec::new();
        match row.0 {
            Kind::Scope(scope) => {
                self.now = scope.from;
                self.scope = Some(scope);
            }
            Kind::Checkpoint(state) => self.resume(&state, &mut decided)?,
            Kind::Sample(at, sample) => {
                bounds::sample(at, &sample).map_err(ReplayError::Impossible)?;
                self.tally.samples += 1;
                if !self.is_ordered() {
                    self.tick_until(sample.at, &mut decided)?;
                }
                self.feed(Input::Sample { at, sample }, &mut decided)?;
            }
            Kind::Learned { waits, forecasts, signs } => {
                self.learned([waits, forecasts, signs], &mut decided);
            }
            Kind::Input(input) => self.input(*input, &mut decided)?,
            Kind::Decision(_) => {}
            Kind::Gap(gap) => {
                self.tally.missing.get_or_insert(format!("{}: {}", gap.at.to_rfc3339(), gap.why));
            }
        }
        let counts = |row: &DecisionRow| {
            self.scope.as_ref().is_none_or(|scope| {
                let of_model = scope.model.as_ref().is_none_or(|model| *model == row.model);
                of_model && scope.from <= row.at && row.at < scope.to
            })
        };
        decided.retain(counts);
        self.tally.decisions += decided.len() as u64;
        Ok(decided)
    }

    /// Whether the file has the order in which the controller took things.
    fn is_ordered(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.ordered)
    }

    /// Whether the learner's findings are taken in when they were recorded to be. With other settings there are others.
    fn has_recorded_findings(&self) -> bool {
        self.is_ordered() && self.other.is_none()
    }

    fn resume(&mut self, state: &str, decided: &mut Vec<DecisionRow>) -> Result<(), ReplayError> {
        let wrong = ReplayError::Checkpoint;
        let State { at, core, pending, learner } = serde_json::from_str(state).map_err(wrong)?;
        bounds::times(&core).map_err(ReplayError::Impossible)?;
        let core = Core::resume(serde_json::from_value::<Checkpoint<'static>>(core).map_err(wrong)?);
        bounds::time(at).and_then(|()| bounds::settings(core.config())).map_err(ReplayError::Impossible)?;
        let forecast = &self.other.as_ref().unwrap_or(core.config()).forecast;
        let learner = Learner::resume(forecast, learner).map_err(wrong)?;
        self.now = at;
        self.parts = Some((core, learner));
        self.waits.clear();
        self.forecasts.clear();
        self.signs.clear();
        for insight in pending.into_iter().map(Insight::from) {
            self.found(insight, decided);
        }
        if let (Some(config), Some((core, _))) = (self.other.clone(), &mut self.parts) {
            core.replace(config, at);
            self.carry_out(decided);
        }
        Ok(())
    }

    fn input(&mut self, input: Input, decided: &mut Vec<DecisionRow>) -> Result<(), ReplayError> {
        bounds::input(&input).map_err(ReplayError::Impossible)?;
        match &input {
            Input::Tick { at }
            | Input::Order { at, .. }
            | Input::Looked { at, .. }
            | Input::Log { at, .. } => {
                self.now = *at;
            }
            Input::Config { at, config } => {
                self.now = *at;
                if self.parts.is_none() {
                    let config = self.other.as_ref().unwrap_or(config);
                    let mut core = Core::new(Arc::clone(config), *at);
                    core.reconcile(*at);
                    self.parts = Some((core, Learner::new(&config.forecast)));
                    return Ok(());
                }
                if self.other.is_some() {
                    return Ok(());
                }
            }
            Input::Sample { .. }
            | Input::Limits { .. }
            | Input::Failure { .. }
            | Input::Load(_)
            | Input::Connected { .. }
            | Input::Undelivered { .. } => {}
        }
        self.feed(input, decided)
    }

    fn tick_until(&mut self, at: DateTime<Utc>, decided: &mut Vec<DecisionRow>) -> Result<(), ReplayError> {
        let first = || at.duration_trunc(TICK).unwrap_or(at) + TICK;
        let mut next = self.next_tick.unwrap_or_else(first);
        let mut made = 0;
        while next <= at && made < MOST_TICKS {
            self.now = next;
            self.feed(Input::Tick { at: next }, decided)?;
            next += TICK;
            made += 1;
        }
        if next <= at {
            let (from, to) = (next.to_rfc3339(), at.to_rfc3339());
            self.tally.missing.get_or_insert(format!("{from}: no telemetry until {to}"));
            next = first();
        }
        self.next_tick = Some(next);
        Ok(())
    }

    fn feed(&mut self, input: Input, decided: &mut Vec<DecisionRow>) -> Result<(), ReplayError> {
        self.tally.ticks += u64::from(matches!(input, Input::Tick { .. }));
        let Some((core, _)) = &mut self.parts else { return Err(ReplayError::NoBeginning) };
        // An order that was refused then is refused now.
        let _ = core.take(input);
        self.carry_out(decided);
        Ok(())
    }

    /// Teaches the learner and notes decisions; everything else would leave the process.
    fn carry_out(&mut self, decided: &mut Vec<DecisionRow>) {
        let Some((core, _)) = &mut self.parts else { return };
        for effect in core.effects() {
            match effect {
                Effect::Decided(row) => decided.push(*row),
                Effect::Teach(lesson) => self.teach(lesson, decided),
                Effect::Journal(_)
                | Effect::Signal(_)
                | Effect::Members
                | Effect::Publish
                | Effect::Note(..)
                | Effect::Count(_) => {}
            }
        }
    }

    fn teach(&mut self, lesson: Lesson, decided: &mut Vec<DecisionRow>) {
        let Some((_, learner)) = &mut self.parts else { return };
        for insight in learner.learn(lesson) {
            self.found(insight, decided);
        }
    }

    fn found(&mut self, insight: Insight, decided: &mut Vec<DecisionRow>) {
        match insight {
            Insight::Wait(..) if self.has_recorded_findings() => self.waits.push_back(insight),
            Insight::Forecast(..) if self.has_recorded_findings() => self.forecasts.push_back(insight),
            Insight::Signs(..) if self.has_recorded_findings() => self.signs.push_back(insight),
            insight => self.take_in(insight, decided),
        }
    }

    fn learned(&mut self, [waits, forecasts, signs]: [u32; 3], decided: &mut Vec<DecisionRow>) {
        if !self.has_recorded_findings() {
            return;
        }
        for _ in 0..waits {
            let next = self.waits.pop_front();
            self.take_next(next, decided);
        }
        for _ in 0..forecasts {
            let next = self.forecasts.pop_front();
            self.take_next(next, decided);
        }
        for _ in 0..signs {
            let next = self.signs.pop_front();
            self.take_next(next, decided);
        }
    }

    fn take_next(&mut self, next: Option<Insight>, decided: &mut Vec<DecisionRow>) {
        match next {
            Some(insight) => self.take_in(insight, decided),
            None => self.tally.not_found += 1,
        }
    }

    fn take_in(&mut self, insight: Insight, decided: &mut Vec<DecisionRow>) {
        let Some((core, _)) = &mut self.parts else { return };
        core.learned(insight, self.now);
        self.carry_out(decided);
    }
}
