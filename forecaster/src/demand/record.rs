//! How the forecasts of one horizon have done, as they were issued.

use serde::{Deserialize, Serialize};

use crate::quantiles::{QUANTILES, Quantiles};

use super::experts::Expert;

/// The weight of outcomes from which the gate may close.
const WEIGHT_MIN: f64 = 24.0;

/// The blend is left for a baseline when its error is the larger by this, in parts of the baseline's, over the root
/// of the independent outcomes behind it; it is taken up again at half of that.
const DOUBT: f64 = 1.0;

/// Means that forget exponentially, all with the same weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Record {
    outcomes: u64,
    weight: f64,
    actual: f64,
    issued: f64,
    blend: f64,
    baselines: [f64; Expert::BASELINES.len()],
    below: [f64; QUANTILES.len()],
    gate: Option<Expert>,
}

impl Record {
    /// Takes in an outcome: `blend` is what all experts said, `issued` what went out. `independent` is the part of an
    /// outcome that tells something new, as neighbours of a far horizon miss the same.
    pub(super) fn score(
        &mut self,
        actual: f64,
        blend: f64,
        issued: &Quantiles,
        baselines: [Option<f64>; Expert::BASELINES.len()],
        keep: f64,
        independent: f64,
    ) {
        let add = |mean: &mut f64, value: f64| *mean = *mean * keep + value;
        self.outcomes += 1;
        add(&mut self.weight, 1.0);
        add(&mut self.actual, actual);
        add(&mut self.issued, (actual - issued.median()).abs());
        add(&mut self.blend, (actual - blend).abs());
        for (mean, point) in self.baselines.iter_mut().zip(baselines) {
            // A baseline that is silent is no better than the blend.
            add(mean, (actual - point.unwrap_or(blend)).abs());
        }
        for (mean, bound) in self.below.iter_mut().zip(issued.values()) {
            add(mean, f64::from(actual <= bound));
        }
        self.decide(independent);
    }

    /// Closes or opens the gate.
    fn decide(&mut self, independent: f64) {
        let best = if self.baselines[0] <= self.baselines[1] { 0 } else { 1 };
        let doubt = DOUBT / (self.weight * independent).sqrt();
        let limit = 1.0 + if self.gate.is_some() { 0.5 * doubt } else { doubt };
        let closed = self.weight >= WEIGHT_MIN && self.blend > limit * self.baselines[best];
        self.gate = closed.then(|| Expert::BASELINES[best]);
    }

    /// The baseline that carries the forecast because the blend has lately done worse.
    pub(super) fn gate(&self) -> Option<Expert> {
        self.gate
    }

    /// Outcomes that were scored, ever.
    pub(super) fn outcomes(&self) -> u64 {
        self.outcomes
    }

    /// Absolute error of the issued medians per unit of demand.
    pub(super) fn error_ratio(&self) -> Option<f64> {
        ratio(self.issued, self.actual)
    }

    /// Absolute error of the issued medians in parts of that of the better baseline.
    pub(super) fn skill_ratio(&self) -> Option<f64> {
        ratio(self.issued, self.baselines[0].min(self.baselines[1]))
    }

    /// Share of outcomes at or below each issued quantile.
    pub(super) fn coverage(&self) -> Option<[f64; QUANTILES.len()]> {
        (self.weight > 0.0).then(|| self.below.map(|below| below / self.weight))
    }
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    Some(part / whole).filter(|ratio| ratio.is_finite())
}
