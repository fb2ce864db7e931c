use serde::{Deserialize, Serialize};

/// Time constant of the estimate, seconds: a few scrapes, since the mix of prompts moves iteration times by itself.
const TIME_CONSTANT_SECONDS: f64 = 1.5;
/// Observations before the usual speed counts as known.
const WARM_UP: u32 = 15;
/// Weight that an observation of the usual speed loses with each further one (half after about 350).
const FORGETTING: f64 = 0.998;
/// Within these bounds a backend runs as usual, and what it shows refines the picture of the usual.
const USUAL: std::ops::RangeInclusive<f64> = 0.6..=1.5;
/// After so many seconds out of bounds the new speed is the usual one (another engine setting, another load mix).
const NEW_USUAL_AFTER_SECONDS: f64 = 600.0;
/// Tokens in an interval that make its mean time count fully; fewer tell less.
const FULL_WEIGHT_TOKENS: f64 = 25.0;
/// Spread of the logarithm of one ratio before anything is known of it, and how fast it is learned.
const PRIOR_SPREAD: f64 = 0.4;
const SPREAD_GAIN: f64 = 0.03;
/// Departures within so many standard deviations of the smoothed ratio are taken for the mix of prompts.
const NOISE_DEVIATIONS: f64 = 1.5;
/// Bounds of the factor: beyond them nothing more is gained by a longer way back.
const BOUNDS: (f64, f64) = (0.25, 16.0);

/// How much longer a backend's iterations take than is usual for itself at the same batch.
///
/// The usual time is a running least-squares fit of the inter-token time on the running batch and the prompt tokens
/// prefilled in an iteration; the factor is the smoothed ratio of the measured to the fitted time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Speed {
    fit: LeastSquares,
    observations: u32,
    log_factor: f64,
    /// Variance of the logarithm of one ratio while all is as usual.
    variance: f64,
    /// Variance of the smoothed logarithm.
    smoothed_variance: f64,
    unusual_seconds: f64,
}

/// What one interval showed of a backend's iterations.
#[derive(Clone, Copy, Debug)]
pub struct Iterations {
    /// Mean time between output tokens, seconds.
    pub inter_token_seconds: f64,
    /// Requests in the batch.
    pub running: f64,
    /// Prompt tokens prefilled.
    pub prompt_tokens: f64,
    /// Output tokens produced.
    pub output_tokens: f64,
    /// Length of the interval, seconds.
    pub seconds: f64,
}

impl Iterations {
    fn is_usable(&self) -> bool {
        let sum =
            self.inter_token_seconds + self.running + self.prompt_tokens + self.output_tokens + self.seconds;
        sum.is_finite()
            && self.inter_token_seconds > 0.0
            && self.running >= 0.0
            && self.prompt_tokens >= 0.0
            && self.output_tokens > 0.0
            && self.seconds > 0.0
    }

    /// An iteration yields one token for each request of the batch, so there were `output_tokens / running` of them.
    fn prompt_tokens_per_iteration(&self) -> f64 {
        self.prompt_tokens * self.running.max(1.0) / self.output_tokens
    }
}

impl Default for Speed {
    fn default() -> Self {
        Self {
            fit: LeastSquares::default(),
            observations: 0,
            log_factor: 0.0,
            variance: PRIOR_SPREAD * PRIOR_SPREAD,
            smoothed_variance: 0.0,
            unusual_seconds: 0.0,
        }
    }
}

impl Speed {
    /// Takes what one interval showed.
    pub fn observe(&mut self, interval: &Iterations) {
        if !interval.is_usable() {
            return;
        }
        // Tens of requests and thousands of tokens, so that the three features are of one size.
        let features = [1.0, interval.running / 10.0, interval.prompt_tokens_per_iteration() / 1000.0];
        let measured = interval.inter_token_seconds;
        if self.observations < WARM_UP {
            self.observations += 1;
            self.fit.update(features, measured);
            return;
        }
        let usual = self.fit.predict(features).max(measured / BOUNDS.1).max(1e-4);
        let log_ratio = (measured / usual).clamp(BOUNDS.0, BOUNDS.1).ln();
        let weight = (interval.output_tokens / FULL_WEIGHT_TOKENS).clamp(0.05, 1.0);
        let gain = 1.0 - (-weight * interval.seconds / TIME_CONSTANT_SECONDS).exp();
        self.log_factor += gain * (log_ratio - self.log_factor);
        self.smoothed_variance = (1.0 - gain).powi(2) * self.smoothed_variance + gain * gain * self.variance;
        if USUAL.contains(&self.factor()) {
            self.unusual_seconds = 0.0;
            self.variance += SPREAD_GAIN * (log_ratio.clamp(-1.0, 1.0).powi(2) - self.variance);
            // A single odd interval moves the picture of the usual no further than the bounds of the usual.
            let bounded = measured.clamp(usual * USUAL.start(), usual * USUAL.end());
            self.fit.update(features, bounded);
        } else {
            self.unusual_seconds += interval.seconds;
            if self.unusual_seconds > NEW_USUAL_AFTER_SECONDS {
                *self = Self::default();
            }
        }
    }

    /// The factor: 1 as usual, 4 when everything takes four times as long. 1 until the usual speed is known.
    ///
    /// What the spread of single intervals explains is taken off, so a backend with little traffic and mixed prompts does
    /// not look slow by chance.
    pub fn factor(&self) -> f64 {
        let noise = NOISE_DEVIATIONS * self.smoothed_variance.sqrt();
        (self.log_factor.signum() * (self.log_factor.abs() - noise).max(0.0)).exp()
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
        // In units of the noise of one observation. The slopes are held back: a batch a little longer than any before must
        // not explain by itself that everything takes several times as long.
        const PRIOR_VARIANCES: [f64; 3] = [100.0, 1.0, 1.0];
        let mut covariance = [[0.0; 3]; 3];
        for (index, row) in covariance.iter_mut().enumerate() {
            row[index] = PRIOR_VARIANCES[index];
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
    use super::{Iterations, Speed};

    /// Iteration time of a plausible server: a base, the batch, the prefill beside it, and what the mix of prompts adds.
    fn usual(step: u32) -> Iterations {
        let running = f64::from(step % 13) + 1.0;
        let prompt_tokens = f64::from((step * 7919) % 9000);
        let output_tokens = 150.0;
        let mix = 1.0 + 0.2 * f64::from(step * 31 % 7) / 7.0;
        let prefill = 0.000_04 * prompt_tokens * running / output_tokens;
        Iterations {
            inter_token_seconds: mix * (0.012 + 0.0006 * running + prefill),
            running,
            prompt_tokens,
            output_tokens,
            seconds: 1.0,
        }
    }

    fn slower(step: u32, times: f64) -> Iterations {
        let usual = usual(step);
        Iterations { inter_token_seconds: times * usual.inter_token_seconds, ..usual }
    }

    #[test]
    fn a_slowdown_shows_within_seconds_and_goes_away_again() {
        let mut speed = Speed::default();
        for step in 0..60 {
            speed.observe(&usual(step));
        }
        assert!((0.9..1.1).contains(&speed.factor()), "usual: {}", speed.factor());
        for step in 60..64 {
            speed.observe(&slower(step, 4.0));
        }
        assert!(speed.factor() > 1.8, "slow: {}", speed.factor());
        for step in 64..80 {
            speed.observe(&slower(step, 4.0));
        }
        assert!((2.5..4.5).contains(&speed.factor()), "slow for longer: {}", speed.factor());
        for step in 80..92 {
            speed.observe(&usual(step));
        }
        assert!((0.8..1.25).contains(&speed.factor()), "well again: {}", speed.factor());
    }

    #[test]
    fn a_slowdown_is_not_explained_by_the_longer_batch_that_it_causes() {
        // A light, even load: one or two requests run. Four times slower, there are three or four, which was never seen.
        let light = |step: u32, times: f64| Iterations {
            inter_token_seconds: times * 0.0083,
            running: f64::from(step % 2) + if times > 1.0 { 3.0 } else { 1.0 },
            prompt_tokens: 300.0,
            output_tokens: 180.0,
            seconds: 1.0,
        };
        for seconds_known in [20, 40, 200] {
            let mut speed = Speed::default();
            for step in 0..seconds_known {
                speed.observe(&light(step, 1.0));
            }
            for step in 0..10 {
                speed.observe(&light(step, 4.0));
            }
            assert!(speed.factor() > 2.5, "after {seconds_known} s: {}", speed.factor());
        }
    }

    #[test]
    fn a_few_tokens_with_long_prompts_beside_them_are_no_slowdown() {
        let mut speed = Speed::default();
        for step in 0..300 {
            let times = if step % 5 == 0 { 3.0 } else { 0.8 };
            speed.observe(&Iterations { output_tokens: 20.0, ..slower(step, times) });
            assert!(speed.factor() < 1.5, "step {step}: {}", speed.factor());
        }
    }

    #[test]
    fn rubbish_changes_nothing() {
        let mut speed = Speed::default();
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            speed.observe(&Iterations { inter_token_seconds: value, ..usual(1) });
            speed.observe(&Iterations { running: f64::NAN, output_tokens: value, ..usual(1) });
        }
        assert!((speed.factor() - 1.0).abs() < 1e-12);
    }
}
