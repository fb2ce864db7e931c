use super::{Measure, Outcomes, PartOutcomes};

/// Sizes of harm that are looked for at a time.
pub(super) const SIZES: usize = 3;
/// Of failures and late first bytes: odds in parts of the odds of the other part.
const ODDS: [f64; SIZES] = [1.5, 4.0, 16.0];
/// Of logarithms: weight of a deviation by one standard deviation.
const TILTS: [f64; SIZES] = [0.1, 0.25, 0.5];
/// The variance of a draw of logarithms counts for more, because large deviations are not those of a normal distribution.
const VARIANCE: f64 = 1.25;
/// More requests in a block are none.
const MOST_REQUESTS: u64 = 1 << 24;
/// A smaller variance of logarithms is none.
const LEAST_VARIANCE: f64 = 1e-9;

/// Logarithms of the evidence of a block that the steered part does worse, by size of harm. Of each the exponential has the
/// mean 1 where which request is in which part is a draw.
pub(super) fn block_evidence(measure: Measure, parts: &PartOutcomes) -> [f64; SIZES] {
    let PartOutcomes { steered, unsteered } = parts;
    let marks = |of: &Outcomes| match measure {
        Measure::Failures => (of.requests, of.failures),
        _ => (of.first_bytes, of.late),
    };
    match measure {
        Measure::Failures | Measure::Late => of_marks(marks(steered), marks(unsteered)),
        Measure::FirstByte => of_logarithms(steered, unsteered),
    }
}

/// Of counts: all, and those that are marked.
fn of_marks(steered: (u64, u64), unsteered: (u64, u64)) -> [f64; SIZES] {
    let (drawn, others) = (steered.0, unsteered.0);
    if drawn.saturating_add(others) > MOST_REQUESTS {
        return [0.0; SIZES];
    }
    let marked = steered.1.min(drawn) + unsteered.1.min(others);
    if drawn == 0 || others == 0 || marked == 0 || marked == drawn + others {
        return [0.0; SIZES];
    }
    let (least, most) = (marked.saturating_sub(others), marked.min(drawn));
    // Probabilities of the hypergeometric distribution but for a factor, one from the other.
    let mut ln_probability = 0.0;
    let mut all = LnSum::default();
    let mut tilted = [LnSum::default(); SIZES];
    for count in least..=most {
        all.add(ln_probability);
        for (sum, odds) in tilted.iter_mut().zip(ODDS) {
            sum.add(ln_probability + (count - least) as f64 * odds.ln());
        }
        let (up, down) = (
            (marked - count) as f64 * (drawn - count) as f64,
            (count + 1) as f64 * (others + count + 1 - marked.min(others + count)) as f64,
        );
        ln_probability += (up / down).ln();
    }
    let mut evidence = [0.0; SIZES];
    for ((ln_e, sum), odds) in evidence.iter_mut().zip(tilted).zip(ODDS) {
        let came = steered.1.clamp(least, most) - least;
        *ln_e = came as f64 * odds.ln() - (sum.ln() - all.ln());
    }
    evidence
}

/// Of logarithms of times: how far their sum is from that of a draw without replacement.
fn of_logarithms(steered: &Outcomes, unsteered: &Outcomes) -> [f64; SIZES] {
    let (drawn, others) = (steered.timed as f64, unsteered.timed as f64);
    if drawn < 1.0 || others < 1.0 {
        return [0.0; SIZES];
    }
    let all = drawn + others;
    let mean = (steered.sum_ln + unsteered.sum_ln) / all;
    let variance = (steered.sum_ln_squared + unsteered.sum_ln_squared) / all - mean * mean;
    if !variance.is_finite() || variance < LEAST_VARIANCE {
        return [0.0; SIZES];
    }
    let deviation = (steered.sum_ln - drawn * mean) / variance.sqrt();
    // Of the deviation, in the same unit.
    let of_draw = drawn * others / (all - 1.0);
    TILTS.map(|tilt| tilt * deviation - 0.5 * tilt * tilt * of_draw * VARIANCE)
}

/// The logarithm of a sum of exponentials.
#[derive(Clone, Copy, Debug)]
struct LnSum {
    largest: f64,
    sum: f64,
}

impl Default for LnSum {
    fn default() -> Self {
        Self { largest: f64::NEG_INFINITY, sum: 0.0 }
    }
}

impl LnSum {
    fn add(&mut self, ln: f64) {
        if ln <= self.largest {
            self.sum += (ln - self.largest).exp();
        } else {
            self.sum = self.sum * (self.largest - ln).exp() + 1.0;
            self.largest = ln;
        }
    }

    fn ln(self) -> f64 {
        self.largest + self.sum.ln()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Ways to choose `k` of `n`.
    fn choose(n: u64, k: u64) -> f64 {
        (0..k).map(|i| (n - i) as f64 / (i + 1) as f64).product()
    }

    proptest! {
        #[test]
        fn over_all_draws_the_evidence_of_marks_is_one_in_the_mean(
            drawn in 1u64..30, others in 1u64..30, part in 0.0f64..=1.0,
        ) {
            let all = drawn + others;
            let marked = (part * all as f64) as u64;
            let mut means = [0.0; SIZES];
            for came in marked.saturating_sub(others)..=marked.min(drawn) {
                let ways = choose(drawn, came) * choose(others, marked - came) / choose(all, marked);
                let evidence = of_marks((drawn, came), (others, marked - came));
                means.iter_mut().zip(evidence).for_each(|(mean, ln_e)| *mean += ways * ln_e.exp());
            }
            for mean in means {
                prop_assert!((mean - 1.0).abs() < 1e-6, "{mean}");
            }
        }

        #[test]
        fn more_harm_is_more_evidence_and_all_numbers_are_finite(
            drawn in 1u64..20_000, others in 1u64..20_000, part in 0.0f64..=1.0, unlucky in 0.0f64..1.0,
        ) {
            let marked = (part * (drawn + others) as f64) as u64;
            let (least, most) = (marked.saturating_sub(others), marked.min(drawn));
            let came = least + (unlucky * (most - least) as f64) as u64;
            let evidence = of_marks((drawn, came), (others, marked - came));
            prop_assert!(evidence.iter().all(|ln_e| ln_e.is_finite()));
            if came < most {
                let more = of_marks((drawn, came + 1), (others, marked - came - 1));
                prop_assert!(evidence.iter().zip(more).all(|(before, after)| *before < after));
            }
        }
    }

    #[test]
    fn logarithms_that_do_not_differ_are_evidence_for_nothing() {
        let timed = |times: &[f64]| {
            let mut outcomes = Outcomes::default();
            times.iter().for_each(|seconds| outcomes.count_first_byte(*seconds, 1.0, false));
            outcomes
        };
        assert_eq!(of_logarithms(&timed(&[0.5, 0.5]), &timed(&[0.5])), [0.0; SIZES]);
        assert_eq!(of_logarithms(&timed(&[0.5, 2.0]), &timed(&[])), [0.0; SIZES]);
        let same = of_logarithms(&timed(&[0.2, 0.8]), &timed(&[0.2, 0.8]));
        assert!(same.iter().all(|ln_e| *ln_e < 0.0), "{same:?}");
        let slower = of_logarithms(&timed(&[0.9; 20]), &timed(&[0.3; 20]));
        assert!(slower.iter().all(|ln_e| *ln_e > 0.0), "{slower:?}");
    }
}
