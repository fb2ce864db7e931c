use serde::{Deserialize, Serialize};

/// Time constant of the estimate, seconds: a few scrapes, since the mix of prompts moves iteration times by itself.
const TIME_CONSTANT_SECONDS: f64 = 2.0;
/// Observations before the usual speed counts as known.
const WARM_UP: u32 = 15;
/// Weight that an observation of the usual speed loses with each further one (half after about 350).
const FORGETTING: f64 = 0.998;
/// Within these bounds a backend runs as usual, and what it shows refines the picture of the usual.
const USUAL: std::ops::RangeInclusive<f64> = 0.6..=1.5;
/// After so many seconds out of bounds the new speed is the usual one (another engine setting, another load mix).
const NEW_USUAL_AFTER_SECONDS: f64 = 600.0;
/// Bounds of the factor: beyond them nothing more is gained by a longer way back.
const BOUNDS: (f64, f64) = (0.25, 16.0);

/// How much longer a backend's iterations take than is usual for itself at the same batch.
///
/// The usual time is a running least-squares fit of the inter-token time on the running batch and the prompt tokens/s
/// prefilled beside it; the factor is the smoothed ratio of the measured to the fitted time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speed {
    fit: LeastSquares,
    observations: u32,
    log_factor: f64,
    unusual_seconds: f64,
}

impl Default for Speed {
    fn default() -> Self {
        Self { fit: LeastSquares::default(), observations: 0, log_factor: 0.0, unusual_seconds: 0.0 }
    }
}

impl Speed {
    /// Takes the mean inter-token time of an interval (seconds), the running batch (requests), and the prompt tokens/s.
    pub fn observe(
        &mut self,
        inter_token_seconds: f64,
        running: f64,
        prompt_tokens_per_second: f64,
        interval_seconds: f64,
    ) {
        let usable = inter_token_seconds > 0.0
            && running >= 0.0
            && prompt_tokens_per_second >= 0.0
            && interval_seconds > 0.0;
        if !usable || !(inter_token_seconds + running + prompt_tokens_per_second).is_finite() {
            return;
        }
        // Thousands of tokens/s, so that the three features are of one size.
        let features = [1.0, running / 10.0, prompt_tokens_per_second / 1000.0];
        if self.observations < WARM_UP {
            self.observations += 1;
            self.fit.update(features, inter_token_seconds);
            return;
        }
        let usual = self.fit.predict(features).max(inter_token_seconds / BOUNDS.1).max(1e-4);
        let ratio = (inter_token_seconds / usual).clamp(BOUNDS.0, BOUNDS.1);
        let gain = 1.0 - (-interval_seconds / TIME_CONSTANT_SECONDS).exp();
        self.log_factor += gain * (ratio.ln() - self.log_factor);
        if USUAL.contains(&self.log_factor.exp()) {
            self.unusual_seconds = 0.0;
            if USUAL.contains(&ratio) || self.log_factor.abs() < 0.1 {
                self.fit.update(features, inter_token_seconds);
            }
        } else {
            self.unusual_seconds += interval_seconds;
            if self.unusual_seconds > NEW_USUAL_AFTER_SECONDS {
                *self = Self::default();
            }
        }
    }

    /// The factor: 1 as usual, 4 when everything takes four times as long. 1 until the usual speed is known.
    pub fn factor(&self) -> f64 {
        self.log_factor.exp()
    }
}

/// Recursive least squares with three coefficients and forgetting.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LeastSquares {
    coefficients: [f64; 3],
    covariance: [[f64; 3]; 3],
}

impl Default for LeastSquares {
    fn default() -> Self {
        const PRIOR_VARIANCE: f64 = 100.0;
        let mut covariance = [[0.0; 3]; 3];
        for (index, row) in covariance.iter_mut().enumerate() {
            row[index] = PRIOR_VARIANCE;
        }
        Self { coefficients: [0.0; 3], covariance }
    }
}

impl LeastSquares {
    fn predict(&self, features: [f64; 3]) -> f64 {
        self.coefficients.iter().zip(features).map(|(coefficient, feature)| coefficient * feature).sum()
    }

    fn update(&mut self, features: [f64; 3], value: f64) {
        let projected = self.covariance.map(|row| row.iter().zip(features).map(|(a, b)| a * b).sum::<f64>());
        let scale = FORGETTING + projected.iter().zip(features).map(|(a, b)| a * b).sum::<f64>();
        let gain = projected.map(|value| value / scale);
        let error = value - self.predict(features);
        for (coefficient, gain) in self.coefficients.iter_mut().zip(gain) {
            *coefficient += gain * error;
        }
        // The trace is bounded, or a long time without excitation would blow it up.
        let trace: f64 = (0..3).map(|index| self.covariance[index][index]).sum();
        let forgetting = if trace > 1e6 { 1.0 } else { FORGETTING };
        for (row, gain) in self.covariance.iter_mut().zip(gain) {
            for (cell, projected) in row.iter_mut().zip(projected) {
                *cell = (*cell - gain * projected) / forgetting;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Speed;

    /// Iteration time of a plausible server: a base, the batch, and the prefill beside it.
    fn usual(step: u32) -> (f64, f64, f64) {
        let running = f64::from(step % 13) + 1.0;
        let prompt = f64::from((step * 7919) % 9000);
        (0.012 + 0.0006 * running + 0.000_002 * prompt, running, prompt)
    }

    #[test]
    fn a_slowdown_shows_within_seconds_and_goes_away_again() {
        let mut speed = Speed::default();
        for step in 0..60 {
            let (time, running, prompt) = usual(step);
            speed.observe(time, running, prompt, 1.0);
        }
        assert!((0.8..1.25).contains(&speed.factor()), "usual: {}", speed.factor());
        for step in 60..65 {
            let (time, running, prompt) = usual(step);
            speed.observe(4.0 * time, running, prompt, 1.0);
        }
        assert!(speed.factor() > 2.5, "slow: {}", speed.factor());
        for step in 65..75 {
            let (time, running, prompt) = usual(step);
            speed.observe(time, running, prompt, 1.0);
        }
        assert!((0.8..1.25).contains(&speed.factor()), "well again: {}", speed.factor());
    }

    #[test]
    fn rubbish_changes_nothing() {
        let mut speed = Speed::default();
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            speed.observe(value, 3.0, 10.0, 1.0);
            speed.observe(0.02, value, f64::NAN, 1.0);
        }
        assert!((speed.factor() - 1.0).abs() < 1e-12);
    }
}
