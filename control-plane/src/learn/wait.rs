use chrono::{DateTime, Utc};

use clairvoy_forecaster::{WaitConfig, WaitModel, WaitPrediction, WaitState};

use crate::telemetry::Sample;

/// Time between two fits of one backend's model, seconds.
const REFIT_EVERY_SECONDS: f64 = 10.0;
/// Outcomes since the last fit that make another one worth its time.
const LEAST_NEW_OUTCOMES: u32 = 5;
/// Time constant of the completion rate, seconds.
const RATE_TIME_CONSTANT_SECONDS: f64 = 5.0;
/// A fitted model is kept in the database this often, seconds.
const KEEP_EVERY_SECONDS: f64 = 60.0;

/// The wait model of one backend and the state that the next outcome belongs to.
#[derive(Default)]
pub(super) struct Lessons {
    model: Option<WaitModel>,
    previous: Option<WaitState>,
    completed_rps: f64,
    ttft_seconds: Option<f64>,
    new_outcomes: u32,
    fitted_at: Option<DateTime<Utc>>,
    kept_at: Option<DateTime<Utc>>,
}

impl Lessons {
    pub(super) fn restore(state: serde_json::Value) -> Result<Self, String> {
        let model: WaitModel = serde_json::from_value(state).map_err(|error| error.to_string())?;
        Ok(Self { model: Some(model), ..Self::default() })
    }

    /// Takes a sample: its TTFT is the outcome of the state before, and it is itself the state of the next prediction.
    pub(super) fn observe(&mut self, sample: &Sample) -> WaitPrediction {
        let model = self.model.get_or_insert_with(|| WaitModel::new(WaitConfig::default()));
        if let (Some(previous), Some(ttft)) = (&self.previous, sample.ttft_seconds)
            && sample.ttft_count > 0.0
        {
            model.observe(previous, ttft, sample.ttft_count);
            self.new_outcomes = self.new_outcomes.saturating_add(1);
        }
        if sample.interval_seconds > 0.0 {
            let gain = 1.0 - (-sample.interval_seconds / RATE_TIME_CONSTANT_SECONDS).exp();
            self.completed_rps += gain * (sample.completed / sample.interval_seconds - self.completed_rps);
        }
        self.ttft_seconds = sample.ttft_seconds.or(self.ttft_seconds);
        let state = WaitState {
            queue_depth: sample.queue_depth.unwrap_or(0.0),
            running: sample.running.unwrap_or(0.0),
            kv_used: sample.kv_used.unwrap_or(0.0),
            gpu_utilisation: sample.gpu_utilisation,
            inter_token_seconds: sample.inter_token_seconds,
            completed_rps: self.completed_rps,
            ttft_seconds: self.ttft_seconds,
            age_seconds: 0.0,
        };
        let prediction = model.predict(&state);
        self.previous = Some(state);
        prediction
    }

    pub(super) fn is_due(&self, now: DateTime<Utc>) -> bool {
        self.new_outcomes >= LEAST_NEW_OUTCOMES
            && self.fitted_at.is_none_or(|at| (now - at).as_seconds_f64() >= REFIT_EVERY_SECONDS)
    }

    pub(super) fn fitted_at(&self) -> Option<DateTime<Utc>> {
        self.fitted_at
    }

    /// Fits anew; returns the state when it is time to keep it.
    pub(super) fn refit(&mut self, now: DateTime<Utc>) -> Option<serde_json::Value> {
        let model = self.model.as_mut()?;
        model.refit();
        self.fitted_at = Some(now);
        self.new_outcomes = 0;
        let keep = self.kept_at.is_none_or(|at| (now - at).as_seconds_f64() >= KEEP_EVERY_SECONDS);
        if !keep {
            return None;
        }
        self.kept_at = Some(now);
        serde_json::to_value(&*model).ok()
    }
}
