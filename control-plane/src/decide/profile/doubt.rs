use serde::{Deserialize, Serialize};

use super::Iteration;
use super::fit::{Fit, Prior, Vector, predict, solve};

/// So much more likely, as a logarithm, must all be by the other profile before it is taken.
const CONVINCED: f64 = 6.0;
/// So much an interval adds to either side at most: one that is far off by both says little.
const MOST_OF_ONE: f64 = 3.0;
/// What looks certain does not stay so for ever.
const MOST_AGAINST: f64 = -12.0;
/// Weight behind the mean of the ratios at most: an engine that recovers in part is soon slow by another factor.
const MEMORY: f64 = 5.0;
/// Where both explain as much it is the speed: a slow engine shows itself in a new profile just as well, with time.
const FOR_THE_SPEED: f64 = 0.1;

/// The other explanation of a backend that looks slow: it is as fast as ever, and its profile is wrong.
///
/// A throttled engine is slow in all that it does by the same factor. One whose profile is wrong is slow in one state and not in
/// the other. So the ratios of measured to modelled times are looked at: how far they are from being all the same, and how well another
/// profile, learned from the intervals before, foretells each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Doubt {
    fit: Fit,
    parameters: Vector,
    evidence: f64,
    /// Mean of the logarithms of the newest ratios, and the weight behind it.
    mean: f64,
    weight: f64,
}

impl Doubt {
    /// Begins with what was learned, and learns from what was held back because it might be slowness.
    pub(super) fn new<'a>(
        fit: &Fit,
        parameters: Vector,
        prior: &Prior,
        held_back: impl Iterator<Item = &'a Iteration>,
    ) -> Self {
        let mut doubt = Self { fit: fit.clone(), parameters, evidence: 0.0, mean: 0.0, weight: 0.0 };
        held_back.for_each(|iteration| doubt.learn(iteration, prior));
        doubt
    }

    /// Takes an interval, the logarithm of measured by modelled time, and the variance of such logarithms. Whether the other
    /// profile is the better explanation now.
    pub(super) fn observe(
        &mut self,
        iteration: &Iteration,
        log_ratio: f64,
        variance: f64,
        prior: &Prior,
    ) -> bool {
        let unlikely = |square: f64| (square / (2.0 * variance)).min(MOST_OF_ONE);
        let own = (iteration.seconds / predict(&self.parameters, iteration)).ln();
        let gained = unlikely(self.unevenness(log_ratio, iteration.weight)) - unlikely(own * own);
        self.evidence += iteration.weight * (gained - FOR_THE_SPEED);
        self.evidence = self.evidence.max(MOST_AGAINST);
        self.learn(iteration, prior);
        self.evidence > CONVINCED
    }

    /// By how much a ratio adds to the sum of squares about their mean.
    fn unevenness(&mut self, log_ratio: f64, weight: f64) -> f64 {
        let before = if self.weight > 0.0 { log_ratio - self.mean } else { 0.0 };
        if self.weight <= 0.0 {
            self.mean = log_ratio;
        }
        self.weight = (self.weight + weight).min(MEMORY);
        self.mean += before * weight / self.weight;
        before * (log_ratio - self.mean)
    }

    fn learn(&mut self, iteration: &Iteration, prior: &Prior) {
        self.fit.observe(iteration, iteration.seconds, predict(&self.parameters, iteration));
        let (information, moment) = self.fit.with(prior);
        if let Some(parameters) = solve(&information, &moment) {
            self.parameters = parameters;
        }
    }

    pub(super) fn into_fit(self) -> Fit {
        self.fit
    }
}
