use serde::{Deserialize, Serialize};

/// Time constant of the estimate, seconds: a few scrapes, since the mix of prompts moves iteration times by itself.
const TIME_CONSTANT_SECONDS: f64 = 1.5;
/// One observation counts for no longer, seconds: a long one may be one stall.
const LONGEST_SECONDS: f64 = 2.0;
/// Spread of the logarithm of one ratio before anything is known of it.
const PRIOR_SPREAD: f64 = 0.3;
/// Observations for which the prior spread counts, and after which older ones are forgotten.
const PRIOR_WEIGHT: f64 = 2.0;
const SPREAD_MEMORY: f64 = 33.0;
/// Departures within so many standard deviations of the smoothed ratio are taken for the mix of prompts.
const NOISE_DEVIATIONS: f64 = 1.5;
/// Bounds of what a ratio counts for: beyond them nothing more is gained by a longer way back.
const BOUNDS: (f64, f64) = (0.25, 16.0);
/// No engine becomes faster by itself: what looks as if is a profile that is too slow, which is learned, and not given requests for.
const LEAST_FACTOR: f64 = 0.67;

/// How much longer a backend's iterations take than its profile says: the smoothed ratio of measured to modelled times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    log_factor: f64,
    /// Variance of the logarithm of one ratio while all is as usual.
    variance: f64,
    /// Observations behind it.
    observations: f64,
    /// Variance of the smoothed logarithm, by what single ratios spread.
    smoothed_variance: f64,
    /// Variance of what the model said of late.
    model_variance: f64,
}

impl Default for Speed {
    fn default() -> Self {
        Self {
            log_factor: 0.0,
            variance: PRIOR_SPREAD * PRIOR_SPREAD,
            observations: 0.0,
            smoothed_variance: 0.0,
            model_variance: 0.0,
        }
    }
}

impl Speed {
    /// Takes the logarithm of measured by modelled time over `seconds`, how much it tells (0 to 1), and the variance of the
    /// model's own logarithm.
    pub fn observe(&mut self, log_ratio: f64, model_variance: f64, weight: f64, seconds: f64) {
        let is_usable = [log_ratio, model_variance, weight, seconds].iter().all(|value| value.is_finite());
        if !is_usable || weight <= 0.0 || seconds <= 0.0 {
            return;
        }
        let log_ratio = log_ratio.clamp(BOUNDS.0.ln(), BOUNDS.1.ln());
        let counted = weight.min(1.0) * seconds.min(LONGEST_SECONDS);
        let gain = 1.0 - (-counted / TIME_CONSTANT_SECONDS).exp();
        self.log_factor += gain * (log_ratio - self.log_factor);
        self.smoothed_variance = (1.0 - gain).powi(2) * self.smoothed_variance + gain * gain * self.variance;
        self.model_variance += gain * (model_variance.clamp(0.0, 4.0) - self.model_variance);
    }

    /// Whether this ratio is further from the usual than what was seen of late.
    pub fn is_led_away_by(&self, log_ratio: f64) -> bool {
        log_ratio.abs() > self.log_factor.abs()
    }

    /// Begins anew, but for how much single ratios spread.
    pub fn forget(&mut self) {
        *self = Self { variance: self.variance, observations: self.observations, ..Self::default() };
    }

    /// Learns from the logarithm of one ratio how much they spread while all is as usual.
    pub fn learn_spread(&mut self, log_ratio: f64) {
        if !log_ratio.is_finite() {
            return;
        }
        self.observations = (self.observations + 1.0).min(SPREAD_MEMORY);
        let gain = 1.0 / (self.observations + PRIOR_WEIGHT).min(SPREAD_MEMORY);
        self.variance += gain * (log_ratio.clamp(-1.0, 1.0).powi(2) - self.variance);
    }

    /// The factor: 1 as usual, 4 when everything takes four times as long.
    ///
    /// What the spread of single intervals and the doubt about the model explain is taken off, so a backend with little traffic
    /// and mixed prompts does not look slow by chance, nor one that is in a state in which it was never seen.
    pub fn factor(&self) -> f64 {
        let noise = NOISE_DEVIATIONS * (self.smoothed_variance + self.model_variance).sqrt();
        (self.log_factor.signum() * (self.log_factor.abs() - noise).max(0.0)).exp().max(LEAST_FACTOR)
    }

    /// Variance of the logarithm of one ratio while all is as usual.
    pub fn variance(&self) -> f64 {
        self.variance
    }
}

#[cfg(test)]
mod tests {
    use super::Speed;

    #[test]
    fn the_factor_follows_within_seconds_and_comes_back() {
        let mut speed = Speed::default();
        (0..30).for_each(|_| speed.learn_spread(0.05));
        for _ in 0..8 {
            speed.observe(4.0_f64.ln(), 0.0, 1.0, 1.0);
        }
        assert!((3.2..=4.0).contains(&speed.factor()), "{}", speed.factor());
        for _ in 0..8 {
            speed.observe(0.0, 0.0, 1.0, 1.0);
        }
        assert_eq!(speed.factor(), 1.0);
    }

    #[test]
    fn doubt_about_the_model_and_spread_are_taken_off() {
        let mut doubtful = Speed::default();
        (0..20).for_each(|_| doubtful.observe(0.6, 0.2, 1.0, 1.0));
        assert_eq!(doubtful.factor(), 1.0);
        let mut rubbish = Speed::default();
        rubbish.observe(f64::NAN, 0.0, 1.0, 1.0);
        rubbish.observe(1.0, f64::INFINITY, 1.0, 1.0);
        rubbish.learn_spread(f64::NAN);
        assert_eq!(rubbish, Speed::default());
    }
}
