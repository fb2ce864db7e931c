use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{AnomalyKind, AnomalyWatch, OwnPace, PaceLaw, TokenWork, Verdict, Vitals};

use crate::decide::Signs;
use crate::fleet::Findings;
use crate::telemetry::Sample;

use super::Residual;
use super::alarm::Alarm;

/// A backend whose newest sample is older is not judged, and none is compared with it, seconds: it is stale or down, and
/// shown as such.
const STALE_SECONDS: f64 = 30.0;

/// What watches one backend for anomalies.
///
/// Of an engine that tells no prefix hits a lost cache is not known, only that it started lately.
#[derive(Default)]
pub(super) struct Lessons {
    watch: AnomalyWatch,
    own_pace: OwnPace,
    alarm: Alarm,
    newest_at: Option<DateTime<Utc>>,
    restarted_at: Option<DateTime<Utc>>,
    /// Engines that export no counters of their output are never silent.
    tells_output: bool,
    /// None before the first judgement, which is told though nothing was found.
    told: Option<Findings>,
    told_signs: Signs,
}

/// The part that decisions depend on: paces and what is only told start over.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    watch: AnomalyWatch,
    newest_at: Option<DateTime<Utc>>,
    restarted_at: Option<DateTime<Utc>>,
    tells_output: bool,
    signs: Signs,
}

/// What is to be told of a judgement, as far as it has changed.
pub(super) struct Changed {
    pub(super) findings: Option<Findings>,
    pub(super) signs: Option<Signs>,
}

impl Lessons {
    pub(super) fn restore(state: serde_json::Value) -> Result<Self, String> {
        let watch = serde_json::from_value(state).map_err(|error| error.to_string())?;
        Ok(Self { watch, ..Self::default() })
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            watch: self.watch.clone(),
            newest_at: self.newest_at,
            restarted_at: self.restarted_at,
            tells_output: self.tells_output,
            signs: self.told_signs,
        }
    }

    pub(super) fn resume(kept: Kept) -> Self {
        let Kept { watch, newest_at, restarted_at, tells_output, signs } = kept;
        Self { watch, newest_at, restarted_at, tells_output, told_signs: signs, ..Self::default() }
    }

    /// Takes a sample, with how far the wait model was off on it; `law` is that of its class.
    pub(super) fn observe(&mut self, sample: &Sample, residual: Option<Residual>, law: &mut PaceLaw) {
        let counted = sample.interval_seconds > 0.0;
        if !counted && self.newest_at.is_some() {
            self.restarted_at = Some(sample.at);
        }
        self.newest_at = Some(sample.at);
        // Steps without output are signs of life too: those of a long prompt.
        let tokens = sample.output_tokens + sample.ttft_count + sample.iterations;
        self.tells_output |= sample.completed > 0.0 || tokens > 0.0;
        let of_interval = |count: f64| (counted && self.tells_output).then_some(count);
        let pace_seconds =
            sample.inter_token_seconds.zip(sample.running).and_then(|(inter_token, running)| {
                let work = TokenWork {
                    inter_token_seconds: inter_token,
                    running,
                    output_tokens: sample.output_tokens,
                    prompt_tokens: sample.prompt_tokens,
                };
                law.observe(&mut self.own_pace, &work)
            });
        self.watch.observe(&Vitals {
            interval_seconds: sample.interval_seconds,
            up_seconds: self.restarted_at.map(|at| (sample.at - at).as_seconds_f64()),
            waiting: sample.queue_depth,
            running: sample.running,
            kv_used: sample.kv_used,
            completed: of_interval(sample.completed),
            tokens: of_interval(tokens),
            pace_seconds,
            prefix_hits: None,
        });
        if let Some(residual) = residual {
            self.watch.observe_outcome(residual.errors, residual.at_seconds);
        }
    }

    /// What is to be judged, while it is up to date.
    pub(super) fn fresh(&self, now: DateTime<Utc>) -> Option<&AnomalyWatch> {
        let at = self.newest_at?;
        ((now - at).as_seconds_f64() <= STALE_SECONDS).then_some(&self.watch)
    }

    /// Takes the judgement of this moment; returns what is to be told when that has changed.
    pub(super) fn judged(&mut self, verdict: &Verdict, now: DateTime<Utc>) -> Changed {
        self.alarm.judge(verdict, now);
        let findings = Findings { score: verdict.score, anomalies: self.alarm.raised() };
        let signs = signs(verdict);
        let changed = Changed {
            findings: (self.told.as_ref() != Some(&findings)).then(|| findings.clone()),
            signs: (signs != self.told_signs).then_some(signs),
        };
        (self.told, self.told_signs) = (Some(findings), signs);
        changed
    }

    pub(super) fn state(&self) -> Option<serde_json::Value> {
        serde_json::to_value(&self.watch).ok()
    }
}

/// What of a judgement decides something.
fn signs(verdict: &Verdict) -> Signs {
    let mut signs = Signs::default();
    for anomaly in &verdict.anomalies {
        match anomaly.kind {
            AnomalyKind::Silent => signs.silent = anomaly.score,
            AnomalyKind::KvLeak => signs.kv_leak = anomaly.score,
            AnomalyKind::ColdCache => signs.cold_cache = anomaly.score,
            // The speed of a backend is learned for itself, and lateness of first tokens may be a surge.
            AnomalyKind::SlowerThanPeers | AnomalyKind::GettingSlower => {}
        }
    }
    signs
}
