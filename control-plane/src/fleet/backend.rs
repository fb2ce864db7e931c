use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{Anomaly, CapacityEstimate, WaitForecast};

use crate::config::{Pool, PoolTelemetry};
use crate::decide::{Capacity, Certainty, EngineSize, Interval, Learner, LoggedAnswers, Profile, Stretch};
use crate::discovery::Lease;
use crate::telemetry::{Limit, Limits, Sample, TelemetryFault};

use super::mix::Traffic;
use super::silence::Silence;
use super::verdicts::Standing;
use super::{GatewayView, Membership, Origin};

/// Refused connections in a row before a backend counts as down.
const DOWN_AFTER_REFUSALS: u32 = 3;
/// Telemetry older than this is stale, seconds.
const STALE_AFTER_SECONDS: f64 = 5.0;
/// A backend silent for longer is not expected to come back, seconds.
const MISSED_FOR_SECONDS: f64 = 300.0;
/// A backend that never showed telemetry is given requests all the same after this time, seconds: its metrics may be
/// out of reach while it serves well.
const PATIENCE_SECONDS: f64 = 15.0;

/// One serving process and what is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Backend {
    /// Its address.
    pub address: SocketAddr,
    /// The model that it serves.
    pub model: String,
    /// Its pool.
    pub pool: String,
    /// Who brought it in.
    pub origin: Origin,
    /// For how long it is registered; none without an end.
    pub lease: Option<Lease>,
    /// Whether it takes requests.
    pub membership: Membership,
    /// When it came into the fleet.
    pub joined_at: DateTime<Utc>,
    /// Its newest sample.
    pub sample: Option<Sample>,
    /// Its newest mean time to first token, and when it was seen.
    pub ttft_seconds: Option<f64>,
    /// Its predicted wait.
    pub wait: Option<WaitForecast>,
    /// What its iterations cost, and how much slower than usual it runs: learned.
    #[serde(default)]
    pub(super) learner: Learner,
    /// What it showed and was not learned from yet.
    #[serde(default)]
    stretch: Stretch,
    /// Requests that it served of late.
    #[serde(default)]
    pub(super) traffic: Traffic,
    /// What Envoys log of it, for as long as its engine does not tell how long its iterations take.
    #[serde(default)]
    pub(super) answers: LoggedAnswers,
    /// Whether its engine tells.
    #[serde(default)]
    pub(super) tells_iterations: bool,
    /// What it serves, learned.
    pub capacity: Capacity,
    /// The rate of requests at which it keeps its model's objective, learned. It is shown; shares are made from `capacity`.
    pub slo_capacity: CapacityEstimate,
    /// What the learner found wrong with it; none before it was judged.
    pub findings: Option<Findings>,
    /// The verdict on it, and what that is made of.
    #[serde(default)]
    pub(super) standing: Standing,
    /// What Envoys tell of it.
    pub gateway: GatewayView,
    /// The last scrape's failure; none after a good one.
    pub failure: Option<String>,
    /// How far its engine goes, as far as it is known.
    pub limits: Limits,
    /// What is wrong with its telemetry.
    pub telemetry_faults: Arc<[TelemetryFault]>,
    refusals: u32,
    /// The last scrape brought no answer of any kind.
    #[serde(default)]
    is_mute: bool,
    /// Since when it has been down.
    #[serde(default)]
    pub(super) down_since: Option<DateTime<Utc>>,
    /// Of one whose telemetry is pushed; none of one that is scraped, or tells of itself in its answers.
    pub(super) silence: Option<Silence>,
}

/// Whether anything is wrong with a backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// The highest score of anything that was looked for, 0 to 10, at this moment: from 1 on something looks wrong.
    pub score: f64,
    /// What is wrong: what was found by two detectors or has lasted, and is not over yet. Worst first.
    pub anomalies: Vec<Anomaly>,
}

/// What a backend's telemetry says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Fresh telemetry.
    Ready,
    /// No telemetry yet.
    Waiting,
    /// Old telemetry.
    Stale,
    /// Connections are refused, or a sender has been silent for long.
    Down,
}

impl Backend {
    pub(super) fn new(
        address: SocketAddr,
        model: &str,
        pool: &str,
        origin: Origin,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            address,
            model: model.to_owned(),
            pool: pool.to_owned(),
            origin,
            lease: None,
            membership: Membership::Active,
            joined_at: now,
            sample: None,
            ttft_seconds: None,
            wait: None,
            learner: Learner::default(),
            stretch: Stretch::default(),
            traffic: Traffic::default(),
            answers: LoggedAnswers::default(),
            tells_iterations: false,
            capacity: Capacity::default(),
            slo_capacity: CapacityEstimate::Unknown,
            findings: None,
            standing: Standing::default(),
            gateway: GatewayView::default(),
            failure: None,
            limits: Limits::default(),
            telemetry_faults: Arc::default(),
            refusals: 0,
            is_mute: false,
            down_since: None,
            silence: None,
        }
    }

    /// Whether it finishes its streams and stays.
    pub fn is_draining(&self) -> bool {
        matches!(self.membership, Membership::Draining { .. })
    }

    pub(super) fn leave(&mut self, now: DateTime<Utc>) {
        if !matches!(self.membership, Membership::Leaving { .. }) {
            self.membership = Membership::Leaving { since: now };
        }
    }

    /// Says how its pool's telemetry comes. What backends say in their answers (ORCA) comes with requests only: without
    /// any of them silence says nothing.
    pub(super) fn set_telemetry_of(&mut self, pool: Option<&Pool>) {
        let pushed = pool.filter(|pool| pool.telemetry == PoolTelemetry::Push);
        let may_fall_silent = pushed.is_some_and(|pool| pool.orca.is_none());
        if pushed.is_some() && (self.silence.is_none() || !may_fall_silent) {
            // Of scrapes before.
            self.failure = None;
            self.refusals = 0;
            self.is_mute = false;
        }
        self.silence = may_fall_silent.then(|| self.silence.unwrap_or_default());
    }

    pub(super) fn observe(&mut self, sample: Sample, now: DateTime<Utc>) {
        let is_first = self.sample.is_none();
        // Counters that went back. Connections that were refused may only have been ours.
        let has_restarted = !is_first && sample.interval_seconds <= 0.0;
        self.standing.showed(is_first, has_restarted, now);
        self.failure = None;
        self.refusals = 0;
        self.is_mute = false;
        if let Some(silence) = &mut self.silence {
            silence.heard(sample.interval_seconds, now);
        }
        self.capacity.observe(sample.completed, sample.interval_seconds, sample.queue_depth);
        self.learn(&sample);
        self.ttft_seconds = sample.ttft_seconds.or(self.ttft_seconds);
        self.sample = Some(sample);
    }

    /// Learns from a sample what iterations cost.
    fn learn(&mut self, sample: &Sample) {
        let kv_tokens = self.engine_size().kv_tokens;
        let resident = sample.kv_used.zip(kv_tokens).map(|(used, tokens)| used * tokens);
        self.traffic.observe(sample, resident);
        // What hangs, and the interval in which that ends, tell neither how long iterations take nor what fits into a batch.
        if self.standing.hangs(sample) {
            self.learner.observe_fill(0.0, 0.0, None, 0.0);
            self.stretch.forget();
            return;
        }
        let Some(running) = sample.running else { return };
        let before = self.sample.as_ref().and_then(|sample| sample.running).unwrap_or(running);
        let mix = self.traffic.mix();
        let interval = Interval {
            seconds: sample.interval_seconds,
            running_before: before,
            running,
            completed: sample.completed,
            ttft_seconds: sample.ttft_seconds,
            ttft_count: sample.ttft_count,
            inter_token_seconds: sample.inter_token_seconds,
            iterations: sample.iterations,
            iteration_tokens: sample.iteration_tokens,
            prompt_tokens: sample.prompt_tokens,
            output_tokens: sample.output_tokens,
            resident_tokens: resident,
            resident_per_sequence: mix.resident_tokens,
        };
        if let Some(iteration) = self.stretch.take(interval).and_then(|whole| whole.iteration()) {
            self.tells_iterations = true;
            self.learner.observe(&iteration);
        }
        let waiting = sample.queue_depth.unwrap_or(0.0);
        self.learner.observe_fill(running, waiting, sample.kv_used, mix.resident_tokens);
    }

    /// How far its engine goes, as it or the configuration says.
    pub(super) fn engine_size(&self) -> EngineSize {
        let firm = |limit: Option<Limit>| {
            limit.filter(Limit::is_firm).map(|limit| limit.value).filter(|value| *value >= 1.0)
        };
        let Limits { max_running, token_budget, block_size, blocks } = self.limits;
        EngineSize {
            max_sequences: firm(max_running),
            kv_tokens: firm(blocks).zip(firm(block_size)).map(|(blocks, tokens)| blocks * tokens),
            token_budget: firm(token_budget),
        }
    }

    /// What an iteration costs at its usual speed, and what fits into it: as it showed itself, or as its pool's backends do in
    /// general. None while neither is known.
    pub fn profile(&self) -> Option<Profile> {
        self.learner.profile(&self.engine_size())
    }

    /// How well its profile is known.
    pub fn certainty(&self) -> Certainty {
        self.learner.certainty()
    }

    /// How many times longer than usual its iterations take.
    pub fn slowdown(&self) -> f64 {
        self.learner.slowdown()
    }

    /// A refused connection counts towards "down"; an answer of any kind does away with that, silence says nothing.
    pub(super) fn observe_failure(&mut self, refused: Option<bool>, message: String) {
        self.refusals = match refused {
            Some(true) => self.refusals.saturating_add(1),
            Some(false) => 0,
            None => self.refusals,
        };
        self.is_mute = refused.is_none();
        self.failure = Some(message);
    }

    /// Whether scrapes get no answer at all.
    pub(super) fn is_mute(&self) -> bool {
        self.is_mute
    }

    /// For how long it has been down, seconds.
    pub fn down_seconds(&self, now: DateTime<Utc>) -> Option<f64> {
        self.down_since.map(|since| (now - since).as_seconds_f64())
    }

    /// Age of the newest sample, seconds.
    pub fn age_seconds(&self, now: DateTime<Utc>) -> Option<f64> {
        self.sample.as_ref().map(|sample| (now - sample.at).as_seconds_f64().max(0.0))
    }

    /// The predicted time to first token of its next request, seconds; none when nothing is known.
    pub fn predicted_wait_seconds(&self) -> Option<f64> {
        self.wait.as_ref().and_then(WaitForecast::known_seconds)
    }

    /// For how long nothing was pushed of it, seconds, where that is too long.
    fn silent_seconds(&self, now: DateTime<Utc>) -> Option<f64> {
        self.silence?.too_long(self.gateway.served_at, now)
    }

    /// What is wrong with its telemetry as a whole, in words.
    pub fn trouble(&self, now: DateTime<Utc>) -> Option<String> {
        let silence = || Some(format!("no telemetry has been pushed for {:.0} s", self.silent_seconds(now)?));
        self.failure.clone().or_else(silence)
    }

    /// What its telemetry says of it.
    pub fn health(&self, now: DateTime<Utc>) -> Health {
        if self.refusals >= DOWN_AFTER_REFUSALS || self.silent_seconds(now).is_some() {
            return Health::Down;
        }
        match self.age_seconds(now) {
            None => Health::Waiting,
            Some(age) if age > STALE_AFTER_SECONDS => Health::Stale,
            Some(_) => Health::Ready,
        }
    }

    /// Whether it has a share of the demand that its telemetry should tell of. One that refuses connections has none, and
    /// one that was silent for long is not waited for.
    pub(super) fn is_expected(&self, now: DateTime<Utc>) -> bool {
        self.membership == Membership::Active
            && matches!(self.health(now), Health::Ready | Health::Stale)
            && self.age_seconds(now).is_some_and(|age| age < MISSED_FOR_SECONDS)
    }

    /// Whether it may take new requests by itself, whatever the others do.
    pub fn is_eligible(&self, now: DateTime<Utc>) -> bool {
        let patient = (now - self.joined_at).as_seconds_f64() < PATIENCE_SECONDS;
        self.membership == Membership::Active
            && match self.health(now) {
                Health::Ready | Health::Stale => true,
                Health::Waiting => !patient,
                Health::Down => false,
            }
    }
}
