use serde::{Deserialize, Serialize};

use crate::Error;

mod drift;
mod leak;
mod pace;
mod peers;
mod silence;
#[cfg(test)]
mod tests;

pub use pace::{OwnPace, PaceLaw, TokenWork};
pub use peers::judge;

use drift::Drift;
use leak::Leak;
use silence::Silence;

/// Format of a saved [`AnomalyWatch`].
const VERSION: u32 = 1;

/// Observations after which the pace of a backend and its prefix hits weigh half: what it is now.
const NOW_HALF_LIFE: f64 = 20.0;

/// The same, for what they usually are.
const USUAL_HALF_LIFE: f64 = 1000.0;

/// What a backend showed in one scrape. What is unknown is `None`; what is negative or not finite counts as unknown.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Vitals {
    /// Time since the observation before, in seconds.
    pub interval_seconds: f64,
    /// Time since the backend started, in seconds.
    pub up_seconds: Option<f64>,
    /// Requests waiting.
    pub waiting: Option<f64>,
    /// Requests being served.
    pub running: Option<f64>,
    /// Share of the KV cache in use, 0 to 1.
    pub kv_used: Option<f64>,
    /// Requests that ended within the interval.
    pub completed: Option<f64>,
    /// Output tokens and first tokens within the interval; of either, what is known.
    pub tokens: Option<f64>,
    /// How long it takes for a piece of work that is alike on all backends of its class, in seconds: the time between two
    /// tokens at comparable load, for which [`PaceLaw`] is.
    pub pace_seconds: Option<f64>,
    /// Share of prompt tokens that were found in the prefix cache within the interval, 0 to 1.
    pub prefix_hits: Option<f64>,
}

/// What is wrong with a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnomalyKind {
    /// It takes longer than the other backends of its class for the same work.
    SlowerThanPeers,
    /// First tokens come later than its own wait model expects, and have not always done so.
    GettingSlower,
    /// Use of the KV cache grows while load does not.
    KvLeak,
    /// Prompts are computed anew that used to be found in the prefix cache: it started lately, or its cache was lost.
    ColdCache,
    /// It has requests and ends none.
    Silent,
}

impl AnomalyKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::SlowerThanPeers, Self::GettingSlower, Self::KvLeak, Self::ColdCache, Self::Silent];

    /// Returns the kind's name, as it is serialised.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SlowerThanPeers => "slower_than_peers",
            Self::GettingSlower => "getting_slower",
            Self::KvLeak => "kv_leak",
            Self::ColdCache => "cold_cache",
            Self::Silent => "silent",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// What.
    pub kind: AnomalyKind,
    /// How far beyond the threshold, which is 1; at most 10.
    pub score: f64,
    /// Why, for a person.
    pub reason: String,
}

/// The judgement of one backend.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Verdict {
    /// The highest score of anything that was looked for, 0 to 10: from 1 on something is wrong.
    pub score: f64,
    /// What is wrong, worst first; empty below 1.
    pub anomalies: Vec<Anomaly>,
}

/// Watches one backend for slowness, leaks, lost caches and silence. About 6 KB of memory.
///
/// Fed with [`observe`](Self::observe) at every scrape and [`observe_outcome`](Self::observe_outcome) with the residual
/// of every outcome of its wait model; [`judge`] compares the backends of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Saved")]
pub struct AnomalyWatch {
    version: u32,
    drift: Drift,
    leak: Leak,
    silence: Silence,
    pace_now: Fading,
    hits_now: Fading,
    hits_usual: Fading,
    up_seconds: Option<f64>,
}

/// A mean that forgets exponentially.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Fading {
    keep: f64,
    sum: f64,
    weight: f64,
}

impl Fading {
    fn new(half_life: f64) -> Self {
        Self { keep: 0.5_f64.powf(1.0 / half_life), sum: 0.0, weight: 0.0 }
    }

    fn add(&mut self, value: f64) {
        self.sum = self.sum * self.keep + value;
        self.weight = self.weight * self.keep + 1.0;
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Default for AnomalyWatch {
    fn default() -> Self {
        Self {
            version: VERSION,
            drift: Drift::default(),
            leak: Leak::default(),
            silence: Silence::default(),
            pace_now: Fading::new(NOW_HALF_LIFE),
            hits_now: Fading::new(NOW_HALF_LIFE),
            hits_usual: Fading::new(USUAL_HALF_LIFE),
            up_seconds: None,
        }
    }
}

impl AnomalyWatch {
    /// Takes in what the backend showed.
    pub fn observe(&mut self, vitals: &Vitals) {
        let lawful = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
        let seconds = lawful(Some(vitals.interval_seconds)).unwrap_or(0.0);
        self.up_seconds = lawful(vitals.up_seconds);
        if let Some(pace) = lawful(vitals.pace_seconds).filter(|pace| *pace > 0.0) {
            self.pace_now.add(pace.ln());
        }
        if let Some(hits) = lawful(vitals.prefix_hits).map(|hits| hits.min(1.0)) {
            self.hits_now.add(hits);
            self.hits_usual.add(hits);
        }
        let (waiting, running) = (lawful(vitals.waiting), lawful(vitals.running));
        if let (Some(kv_used), Some(running)) = (lawful(vitals.kv_used), running) {
            self.leak.observe(kv_used.min(1.0), running);
        }
        let load = waiting.unwrap_or(0.0) + running.unwrap_or(0.0);
        self.silence.observe(seconds, load, lawful(vitals.completed), lawful(vitals.tokens));
    }

    /// Takes in how far an outcome of the wait model was off:
    /// [`WaitTicket::residual`](crate::WaitTicket::residual); `now_seconds` is on any clock. Ignored when either is not finite.
    pub fn observe_outcome(&mut self, residual: f64, now_seconds: f64) {
        if residual.is_finite() && now_seconds.is_finite() {
            self.drift.observe(residual, now_seconds);
        }
    }
}

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
struct Saved {
    version: u32,
    drift: Drift,
    leak: Leak,
    silence: Silence,
    pace_now: Fading,
    hits_now: Fading,
    hits_usual: Fading,
    up_seconds: Option<f64>,
}

impl TryFrom<Saved> for AnomalyWatch {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, drift, leak, silence, pace_now, hits_now, hits_usual, up_seconds } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        if !drift.is_bounded() || !leak.is_bounded() {
            return Err(Error::Inconsistent("more observations than are kept"));
        }
        Ok(Self { version, drift, leak, silence, pace_now, hits_now, hits_usual, up_seconds })
    }
}
