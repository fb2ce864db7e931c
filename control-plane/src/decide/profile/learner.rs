use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::super::Speed;
use super::class::ClassProfile;
use super::doubt::Doubt;
use super::fit::{Fit, Prior, Vector, in_seconds, leverage, predict, row, solve};
use super::room::Room;
use super::{Iteration, Profile};

/// Observations before a backend of an unknown class counts as known.
const WARM_UP: f64 = 15.0;
/// Up to so many it may not have been seen under load.
const YOUNG: f64 = 60.0;
/// Up to so many times longer a backend runs as usual, and what it shows refines the picture of the usual.
const USUAL_UP_TO: f64 = 1.5;
/// After so many seconds beyond, the new speed is the usual one (another engine setting, other hardware).
const NEW_USUAL_AFTER_SECONDS: f64 = 600.0;
/// A single interval moves the picture of the usual by no more than so many standard deviations, within these bounds of
/// the logarithm.
const DEVIATIONS: f64 = 3.0;
const OUTLIERS: (f64, f64) = (0.15, 1.5);
/// Variance of one observation that the doubt about the model is reckoned with at least: with less, what the fit started from
/// would seem to be known.
const LEAST_VARIANCE: f64 = 0.02;
/// An interval is learned from when so many more have come and the backend still runs as usual: the first slow ones look like
/// chance, and would make slowness usual.
const LEARNED_LATER: usize = 5;

/// An interval that may be learned from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    iteration: Iteration,
    /// Logarithm of measured by modelled time, and the most of it that counts.
    log_ratio: f64,
    most: f64,
}

/// How far an engine goes, as far as it is firmly known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineSize {
    /// Most sequences in a batch.
    pub max_sequences: Option<f64>,
    /// Tokens that the KV cache holds.
    pub kv_tokens: Option<f64>,
    /// Most tokens of an iteration.
    pub token_budget: Option<f64>,
}

/// How well a profile is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Certainty {
    /// Iterations that were observed of the backend itself, by weight.
    pub observations: f64,
    /// Standard error of the modelled time of an iteration like the last one, in parts of it.
    pub relative_error: f64,
}

/// What is learned of one backend: the profile at its usual speed, and its present speed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Learner {
    fit: Fit,
    /// What is believed, with the class's part in it; none before the first observation of any of the class.
    parameters: Option<Vector>,
    class: Option<ClassProfile>,
    /// How many times longer than its class's its usual iterations take, where that was so for long.
    departure: Option<f64>,
    speed: Speed,
    unusual_seconds: f64,
    /// The newest intervals, from which nothing has been learned yet.
    waiting: VecDeque<Waiting>,
    /// While it is slow: whether its profile is wrong instead.
    doubt: Option<Doubt>,
    /// Variance of the last modelled time.
    last_variance: f64,
    room: Room,
}

impl Learner {
    /// Takes what was learned of the backend's class.
    pub fn inherit(&mut self, class: Option<&ClassProfile>) {
        self.class = class.cloned();
        // The others have become like this one.
        if let (Some(class), Some(parameters)) = (class, &self.parameters)
            && self.departure.is_some()
            && class.is_like(parameters)
        {
            self.departure = None;
        }
        if self.parameters.is_none() || self.fit.observations < 1.0 {
            self.parameters = self.class.as_ref().map(ClassProfile::parameters);
        }
    }

    /// Takes the mean iteration of an interval.
    pub fn observe(&mut self, iteration: &Iteration) {
        if !iteration.is_usable() {
            return;
        }
        let measured = iteration.seconds;
        let known = self.parameters.filter(|_| self.is_known());
        let Some(parameters) = known else {
            self.learn(iteration, measured, measured);
            return;
        };
        let usual = predict(&parameters, iteration);
        let log_ratio = (measured / usual).ln();
        let prior = self.prior();
        let spread = self.speed.variance();
        let leverage = leverage(&self.fit.with(&prior).0, &row(iteration, usual));
        self.last_variance = (spread.max(LEAST_VARIANCE) * leverage).min(4.0);
        // In the first minute an iteration of a kind that was hardly seen tells of the profile, and little of the speed, as far as
        // the doubt about the profile explains it. Taken for slowness, what an engine costs under its first load would never be
        // learned. Later it is the other way round: a throttled engine is in states that were never seen.
        let is_explained = log_ratio * log_ratio <= DEVIATIONS * DEVIATIONS * (spread + self.last_variance);
        let is_young = self.fit.observations < YOUNG;
        let is_doubtful = is_young && is_explained && self.speed.is_led_away_by(log_ratio);
        let told_of_speed = iteration.weight / if is_doubtful { leverage.max(1.0) } else { 1.0 };
        self.speed.observe(log_ratio, self.last_variance, told_of_speed, iteration.interval_seconds);
        if self.speed.factor() <= USUAL_UP_TO {
            self.unusual_seconds = 0.0;
            self.doubt = None;
            let most = (DEVIATIONS * (spread + self.last_variance).sqrt()).clamp(OUTLIERS.0, OUTLIERS.1);
            self.waiting.push_back(Waiting { iteration: *iteration, log_ratio, most });
            if self.waiting.len() > LEARNED_LATER {
                self.learn_oldest();
            }
        } else {
            let variance = spread.max(LEAST_VARIANCE);
            let mut doubt = self.doubt.take().unwrap_or_else(|| {
                let held_back = self.waiting.drain(..).map(|waiting| waiting.iteration).collect::<Vec<_>>();
                Doubt::new(&self.fit, parameters, &prior, held_back.iter())
            });
            if doubt.observe(iteration, log_ratio, variance, &prior) {
                self.take_other_profile(doubt);
                return;
            }
            self.doubt = Some(doubt);
            self.unusual_seconds += iteration.interval_seconds;
            if self.unusual_seconds > NEW_USUAL_AFTER_SECONDS {
                self.take_for_usual();
            }
        }
    }

    /// Learns from what nothing unusual came after.
    fn learn_oldest(&mut self) {
        let Some((Waiting { iteration, log_ratio, most }, parameters)) =
            self.waiting.pop_front().zip(self.parameters)
        else {
            return;
        };
        self.speed.learn_spread(log_ratio);
        let usual = predict(&parameters, &iteration);
        let measured = iteration.seconds.ln() - usual.ln();
        self.learn(&iteration, usual * measured.clamp(-most, most).exp(), usual);
    }

    fn learn(&mut self, iteration: &Iteration, seconds: f64, expected_seconds: f64) {
        self.fit.observe(iteration, seconds, expected_seconds);
        self.believe();
    }

    /// Works out the parameters anew.
    fn believe(&mut self) {
        let (information, moment) = self.fit.with(&self.prior());
        if let Some(parameters) = solve(&information, &moment) {
            self.parameters = Some(parameters);
        }
    }

    /// What is believed before the backend's own observations.
    fn prior(&self) -> Prior {
        match &self.class {
            Some(class) => class.prior(self.departure.unwrap_or(1.0)),
            None => self.fit.prior(),
        }
    }

    fn take_other_profile(&mut self, doubt: Doubt) {
        self.fit = doubt.into_fit();
        self.speed.forget();
        self.unusual_seconds = 0.0;
        self.believe();
    }

    fn take_for_usual(&mut self) {
        let factor = self.speed.factor();
        self.fit.slow_down(factor);
        self.departure = Some((self.departure.unwrap_or(1.0) * factor).clamp(1e-3, 1e3));
        self.speed = Speed::default();
        self.unusual_seconds = 0.0;
        self.doubt = None;
        self.believe();
    }

    /// Takes how full the engine is: sequences that run and wait, the part of the cache in use, and tokens that a running
    /// sequence has in it, in the mean.
    pub fn observe_fill(&mut self, running: f64, waiting: f64, kv_used: Option<f64>, per_sequence: f64) {
        self.room.observe(running, waiting, kv_used, per_sequence);
    }

    /// Whether the usual time of its iterations is known, by itself or by its class.
    pub fn is_known(&self) -> bool {
        self.parameters.is_some() && (self.class.is_some() || self.fit.observations >= WARM_UP)
    }

    /// The profile at the usual speed; none until it is known.
    pub fn profile(&self, size: &EngineSize) -> Option<Profile> {
        let parameters = self.parameters.filter(|_| self.is_known())?;
        let class = self.class.as_ref();
        let batch = if self.fit.observations >= WARM_UP {
            self.fit.largest_batch
        } else {
            class.map_or(self.fit.largest_batch, ClassProfile::largest_batch)
        };
        let [fixed, per_sequence, per_prompt_token, per_kv_token] = in_seconds(&parameters, batch);
        let size = self.size(size);
        let of_class = class.map(ClassProfile::size).unwrap_or_default();
        Some(Profile {
            fixed_seconds: fixed,
            per_sequence_seconds: per_sequence,
            per_prompt_token_seconds: per_prompt_token,
            per_kv_token_seconds: per_kv_token,
            max_sequences: size.max_sequences.or(of_class.max_sequences),
            kv_tokens: size.kv_tokens.or(of_class.kv_tokens),
            token_budget: size.token_budget.or(of_class.token_budget),
        })
    }

    /// What is told of the engine's size, with the gaps filled by what was seen.
    pub(super) fn size(&self, told: &EngineSize) -> EngineSize {
        self.room.fill(told)
    }

    /// How many times longer than usual its iterations take; 1 until the usual is known.
    pub fn slowdown(&self) -> f64 {
        self.speed.factor()
    }

    /// How well the profile is known.
    pub fn certainty(&self) -> Certainty {
        let has_shown = self.is_known() && self.fit.observations > 0.0;
        let relative_error = if has_shown { self.last_variance.sqrt() } else { 1.0 };
        Certainty { observations: self.fit.observations, relative_error }
    }

    pub(super) fn fit(&self) -> &Fit {
        &self.fit
    }

    pub(super) fn parameters(&self) -> Option<&Vector> {
        self.parameters.as_ref()
    }
}
