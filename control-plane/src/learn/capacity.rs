use clairvoy_forecaster::{CapacityEstimate, CapacityModel, LatencyTarget, LoadWindow};

use crate::telemetry::Sample;

/// Samples of one window of load: so many that the rates within it are more than a few requests, and so few that load is
/// about the same throughout. Ten seconds at one a second.
const WINDOW_SAMPLES: u32 = 10;
/// A longer gap between two samples is an outage: what the window has so far is let go, seconds.
const LONGEST_INTERVAL_SECONDS: f64 = 30.0;

/// The capacity model of one backend, and the window that it is shown next.
#[derive(Default)]
pub(super) struct Lessons {
    model: CapacityModel,
    window: Window,
}

/// Sums over the samples of a window.
#[derive(Default)]
struct Window {
    samples: u32,
    seconds: f64,
    arrived: f64,
    completed: f64,
    ttft_seconds: f64,
    ttft_count: f64,
    inter_token_seconds: f64,
    tokens: f64,
}

impl Window {
    fn add(&mut self, sample: &Sample) {
        self.samples += 1;
        self.seconds += sample.interval_seconds;
        self.arrived += sample.arrived;
        self.completed += sample.completed;
        if let Some(ttft) = sample.ttft_seconds.filter(|_| sample.ttft_count > 0.0) {
            self.ttft_seconds += ttft * sample.ttft_count;
            self.ttft_count += sample.ttft_count;
        }
        if let Some(inter_token) = sample.inter_token_seconds.filter(|_| sample.output_tokens > 0.0) {
            self.inter_token_seconds += inter_token * sample.output_tokens;
            self.tokens += sample.output_tokens;
        }
    }

    fn load(&self, waiting: Option<f64>) -> LoadWindow {
        // A window of long answers alone tells no rate: nothing came, nothing ended.
        let moved = self.arrived > 0.0 || self.completed > 0.0;
        let rate = |count: f64| moved.then(|| count / self.seconds);
        let mean = |sum: f64, count: f64| (count > 0.0).then(|| sum / count);
        LoadWindow {
            arrived_rps: rate(self.arrived),
            completed_rps: rate(self.completed),
            waiting,
            running: None,
            ttft_seconds: mean(self.ttft_seconds, self.ttft_count),
            inter_token_seconds: mean(self.inter_token_seconds, self.tokens),
        }
    }
}

impl Lessons {
    pub(super) fn restore(state: serde_json::Value) -> Result<Self, String> {
        let model = serde_json::from_value(state).map_err(|error| error.to_string())?;
        Ok(Self { model, window: Window::default() })
    }

    /// Takes a sample; returns what is known of the capacity when that has changed, at the end of a window.
    pub(super) fn observe(&mut self, sample: &Sample, target: &LatencyTarget) -> Option<CapacityEstimate> {
        if !(sample.interval_seconds > 0.0 && sample.interval_seconds <= LONGEST_INTERVAL_SECONDS) {
            self.window = Window::default();
            return None;
        }
        self.window.add(sample);
        if self.window.samples < WINDOW_SAMPLES {
            return None;
        }
        let window = std::mem::take(&mut self.window);
        self.model.observe(&window.load(sample.queue_depth));
        Some(self.model.estimate(target))
    }

    pub(super) fn state(&self) -> Option<serde_json::Value> {
        serde_json::to_value(&self.model).ok()
    }
}
