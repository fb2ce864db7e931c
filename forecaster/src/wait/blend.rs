use serde::{Deserialize, Serialize};

use super::forecast::WaitExpert;

/// Experts in a blend.
pub(super) const EXPERTS: usize = WaitExpert::ALL.len();

/// Lower edges of the bands of predicted waits, in seconds, but for the first, which begins at zero: an expert that is
/// right about jams need not be right about an idle backend.
const BANDS: [f64; 8] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// Outcomes after which an error weighs half; in a band, those that fell into it.
const HALF_LIFE: f64 = 60.0;

/// Outcomes of any wait after which what is known of a band weighs half: what was learned of the last jam, long ago, must
/// not outweigh what was learned since.
const FADE_HALF_LIFE: f64 = 200.0;

/// How much the errors of a neighbouring band count; those of the next one this much less again.
const NEIGHBOUR: f64 = 0.2;

/// An expert that has just appeared starts with this many outcomes at the error of the others.
const STARTING_OUTCOMES: f64 = 10.0;

/// Powers of the errors: in seconds within the band, and relative over all bands.
const BAND_POWER: f64 = 3.0;
const RELATIVE_POWER: f64 = 2.0;

/// Errors below this count alike, in seconds or relative.
const ERROR_MIN: f64 = 1e-4;

/// The band of a predicted wait.
pub(super) fn band(seconds: f64) -> usize {
    BANDS.iter().filter(|edge| seconds >= **edge).count()
}

/// Bands of predicted waits.
pub(super) const BAND_COUNT: usize = BANDS.len() + 1;

/// A sum of errors that is forgotten exponentially.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Forgotten {
    pub(super) sum: f64,
    pub(super) weight: f64,
}

impl Forgotten {
    pub(super) fn add(&mut self, value: f64, keep: f64) {
        self.sum = self.sum * keep + value;
        self.weight = self.weight * keep + 1.0;
    }

    pub(super) fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// How one expert has lately done.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Errors {
    in_band: [Forgotten; BAND_COUNT],
    relative: Forgotten,
    seconds: Forgotten,
}

impl Errors {
    /// The errors in a band and, at a discount, in the others: a jam longer than any that was met is judged by those that
    /// come next to it.
    fn around(&self, band: usize) -> Forgotten {
        let mut sum = Forgotten::default();
        for (other, errors) in self.in_band.iter().enumerate() {
            let discount = NEIGHBOUR.powi(other.abs_diff(band) as i32);
            sum.sum += discount * errors.sum;
            sum.weight += discount * errors.weight;
        }
        sum
    }
}

/// What each expert says, in seconds; `None` when it says nothing.
pub(super) type Opinions = [Option<f64>; EXPERTS];

/// Weighs experts by their recent errors: in seconds where the wait is about as long, and relative over all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Blend {
    experts: [Errors; EXPERTS],
}

impl Blend {
    /// Takes in the outcome of a question that the experts had answered.
    pub(super) fn score(&mut self, band: usize, opinions: &Opinions, ttft_seconds: f64) {
        let keep = 0.5_f64.powf(1.0 / HALF_LIFE);
        let fade = 0.5_f64.powf(1.0 / FADE_HALF_LIFE);
        for (errors, opinion) in self.experts.iter_mut().zip(opinions) {
            for other in &mut errors.in_band {
                other.sum *= fade;
                other.weight *= fade;
            }
            let Some(said) = opinion else { continue };
            let error = (said - ttft_seconds).abs();
            errors.in_band[band].add(error, keep);
            errors.seconds.add(error, keep);
            errors.relative.add((said.ln() - ttft_seconds.ln()).abs(), keep);
        }
    }

    /// Returns the share of each expert, which sum to one, for a wait in the band; experts that say nothing have none.
    pub(super) fn shares(&self, band: usize, opinions: &Opinions) -> [f64; EXPERTS] {
        let mut shares = [0.0; EXPERTS];
        let heard: Vec<usize> = (0..EXPERTS).filter(|index| opinions[*index].is_some()).collect();
        let mut weigh = |power: f64, errors: &dyn Fn(&Errors) -> Forgotten| {
            let all: Vec<Forgotten> = heard.iter().map(|index| errors(&self.experts[*index])).collect();
            let common = median(all.iter().filter(|errors| errors.weight > 1.0).filter_map(Forgotten::mean));
            let Some(common) = common else { return };
            for (index, errors) in heard.iter().zip(&all) {
                let mean = (errors.sum + STARTING_OUTCOMES * common) / (errors.weight + STARTING_OUTCOMES);
                shares[*index] -= power * mean.max(ERROR_MIN).ln();
            }
        };
        weigh(BAND_POWER, &|errors| errors.around(band));
        weigh(RELATIVE_POWER, &|errors| errors.relative);
        let best = heard.iter().map(|index| shares[*index]).fold(f64::NEG_INFINITY, f64::max);
        for (share, opinion) in shares.iter_mut().zip(opinions) {
            *share = if opinion.is_some() { (*share - best).exp() } else { 0.0 };
        }
        let total: f64 = shares.iter().sum();
        shares.map(|share| if total > 0.0 { share / total } else { 0.0 })
    }

    /// Returns the recent mean error of an expert, in seconds.
    pub(super) fn error_seconds(&self, expert: usize) -> Option<f64> {
        self.experts[expert].seconds.mean()
    }

    /// Forgets how an expert did; it is another one now.
    pub(super) fn forget(&mut self, expert: usize) {
        self.experts[expert] = Errors::default();
    }
}

/// Returns the mean of the opinions by share.
pub(super) fn mean(opinions: &Opinions, shares: &[f64; EXPERTS]) -> f64 {
    opinions.iter().zip(shares).filter_map(|(opinion, share)| Some(opinion.as_ref()? * share)).sum()
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
