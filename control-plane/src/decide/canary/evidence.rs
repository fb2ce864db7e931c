use super::{Measure, PartOutcomes};

/// Sizes of harm that are looked for at a time.
pub(super) const SIZES: usize = 3;
/// Odds of the steered part to be marked, in parts of those of the other part.
const ODDS: [f64; SIZES] = [1.5, 4.0, 16.0];
/// A block with more requests than can be is left out.
const MOST_REQUESTS: u64 = 1 << 21;

/// Logarithms of the evidence of a block that the steered part does worse, by size of harm. Of each the exponential has the
/// mean 1 where which request is in which part is a draw.
pub(super) fn block_evidence(measure: Measure, parts: &PartOutcomes) -> [f64; SIZES] {
    let PartOutcomes { steered, unsteered } = parts;
    match measure {
        Measure::Failures => {
            of_marks((steered.requests, steered.failures), (unsteered.requests, unsteered.failures))
        }
        Measure::Late => {
            of_marks((steered.first_bytes, steered.late), (unsteered.first_bytes, unsteered.late))
        }
        Measure::FirstByte => of_times(&steered.times, &unsteered.times),
    }
}

/// Of all of both parts, and those that are marked.
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

/// Of times: marked is what took longer than about half of all. Where that lies, all together say, so it is the same for every
/// draw.
fn of_times(steered: &[(u8, u64)], unsteered: &[(u8, u64)]) -> [f64; SIZES] {
    let count = |times: &[(u8, u64)], above: Option<u8>| {
        let counted = times.iter().filter(|(time, _)| above.is_none_or(|above| *time > above));
        counted.fold(0u64, |sum, (_, count)| sum.saturating_add(*count))
    };
    let both = |above: u8| count(steered, Some(above)).saturating_add(count(unsteered, Some(above)));
    let (drawn, others) = (count(steered, None), count(unsteered, None));
    let half = drawn.saturating_add(others) / 2;
    let times = steered.iter().chain(unsteered).map(|(time, _)| *time);
    let Some(above) = times.min_by_key(|time| (both(*time).abs_diff(half), *time)) else {
        return [0.0; SIZES];
    };
    of_marks((drawn, count(steered, Some(above))), (others, count(unsteered, Some(above))))
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

    use super::super::Outcomes;
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

    fn timed(times: &[f64]) -> Outcomes {
        let mut outcomes = Outcomes::default();
        times.iter().for_each(|seconds| outcomes.count_first_byte(*seconds, 1.0, false));
        outcomes
    }

    fn of_seconds(steered: &[f64], unsteered: &[f64]) -> [f64; SIZES] {
        let parts = PartOutcomes { steered: timed(steered), unsteered: timed(unsteered) };
        assert!(parts.is_possible(), "{parts:?}");
        block_evidence(Measure::FirstByte, &parts)
    }

    #[test]
    fn times_that_do_not_differ_are_evidence_for_nothing() {
        assert_eq!(of_seconds(&[0.5, 0.5], &[0.5]), [0.0; SIZES]);
        assert_eq!(of_seconds(&[0.5, 2.0], &[]), [0.0; SIZES]);
        let same = of_seconds(&[0.2, 0.8], &[0.2, 0.8]);
        assert!(same.iter().all(|ln_e| *ln_e < 0.0), "{same:?}");
        let slower = of_seconds(&[0.36; 20], &[0.3; 20]);
        assert!(slower.iter().all(|ln_e| *ln_e > 1.0), "{slower:?}");
        let faster = of_seconds(&[0.3; 20], &[0.36; 20]);
        assert!(faster.iter().all(|ln_e| *ln_e < -1.0), "{faster:?}");
    }

    proptest! {
        #[test]
        fn over_all_draws_the_evidence_of_times_is_one_in_the_mean_whatever_their_tail(
            times in prop::collection::vec(-8.0f64..8.0, 2..9), drawn: prop::sample::Index,
        ) {
            let drawn = 1 + drawn.index(times.len() - 1);
            let mut sums = [0.0; SIZES];
            let mut draws = 0.0;
            for chosen in 0u32..1 << times.len() {
                if chosen.count_ones() as usize != drawn {
                    continue;
                }
                let part = |steered: bool| -> Vec<f64> {
                    let of = times.iter().enumerate().filter(|(place, _)| (chosen >> place & 1 == 1) == steered);
                    of.map(|(_, ln)| ln.exp()).collect()
                };
                draws += 1.0;
                let evidence = of_seconds(&part(true), &part(false));
                sums.iter_mut().zip(evidence).for_each(|(sum, ln_e)| *sum += ln_e.exp());
            }
            for sum in sums {
                prop_assert!((sum / draws - 1.0).abs() < 1e-9, "{}", sum / draws);
            }
        }
    }
}
