use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Time over which entries are counted before the part that is kept is set anew, seconds.
const WINDOW_SECONDS: f64 = 0.25;

/// Keeps a bounded number of entries per second, each with the number of entries for which it stands.
///
/// Every entry has the same chance, set from how many came before it and never from what it says, so sums of weights
/// are unbiased estimates of counts. Below the limit everything is kept, with weight 1.
#[derive(Debug)]
pub struct Sampler {
    most_per_second: f64,
    random: StdRng,
    window_began: Option<f64>,
    seen: f64,
    kept_part: f64,
}

impl Sampler {
    /// A sampler that aims at so many kept entries per second. The same seed and entries give the same choice.
    pub fn new(most_per_second: f64, seed: u64) -> Self {
        Self {
            most_per_second: most_per_second.max(1.0),
            random: StdRng::seed_from_u64(seed),
            window_began: None,
            seen: 0.0,
            kept_part: 1.0,
        }
    }

    /// Tells the time, seconds from any origin, before the entries that came at it.
    pub fn now(&mut self, now_seconds: f64) {
        let began = *self.window_began.get_or_insert(now_seconds);
        let elapsed = now_seconds - began;
        if (0.0..WINDOW_SECONDS).contains(&elapsed) {
            return;
        }
        // After a silence the rate is that of what came at its begin, and the next window sets it right.
        let rate = self.seen / elapsed.max(WINDOW_SECONDS);
        self.kept_part = (self.most_per_second / rate.max(1.0)).min(1.0);
        (self.window_began, self.seen) = (Some(now_seconds), 0.0);
    }

    /// The weight of the next entry; none when it is left out.
    pub fn take(&mut self) -> Option<f64> {
        self.seen += 1.0;
        let keep = self.kept_part >= 1.0 || self.random.random::<f64>() < self.kept_part;
        keep.then(|| 1.0 / self.kept_part)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Kept entries and the sum of their weights, of a rate over some seconds, in batches of a hundredth of a second.
    fn run(sampler: &mut Sampler, rate: u32, seconds: u32, from: f64) -> (f64, f64) {
        let (mut kept, mut weight) = (0.0, 0.0);
        for batch in 0..seconds * 100 {
            sampler.now(from + f64::from(batch) / 100.0);
            for entry in (0..rate / 100).filter_map(|_| sampler.take()) {
                kept += 1.0;
                weight += entry;
            }
        }
        (kept, weight)
    }

    #[test]
    fn below_the_limit_everything_is_kept() {
        let mut sampler = Sampler::new(1000.0, 1);
        assert_eq!(run(&mut sampler, 900, 5, 0.0), (4500.0, 4500.0));
    }

    #[test]
    fn above_the_limit_about_as_many_are_kept_as_allowed_and_it_recovers() {
        let mut sampler = Sampler::new(1000.0, 1);
        run(&mut sampler, 20_000, 1, 0.0);
        let (kept, weight) = run(&mut sampler, 20_000, 5, 1.0);
        assert!((4500.0..5500.0).contains(&kept), "{kept}");
        assert!((95_000.0..105_000.0).contains(&weight), "{weight}");
        run(&mut sampler, 100, 1, 6.0);
        assert_eq!(run(&mut sampler, 100, 2, 7.0), (200.0, 200.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn sums_of_weights_are_unbiased(
            rates in prop::collection::vec(1u32..80, 1..6), seed in any::<u64>(), every in 2u64..50,
        ) {
            // Marked entries, as errors among answers, are estimated as well as all of them.
            let (runs, mut errors, mut marked_errors, mut variance) = (40u64, 0.0, 0.0, 1.0);
            for round in 0..runs {
                let mut sampler = Sampler::new(300.0, seed.wrapping_add(round));
                let (mut count, mut now) = (0u64, 0.0);
                for rate in &rates {
                    for _ in 0..50 {
                        now += 0.01;
                        sampler.now(now);
                        for _ in 0..*rate {
                            let weight = sampler.take();
                            let kept = weight.unwrap_or(0.0);
                            errors += kept - 1.0;
                            if count.is_multiple_of(every) {
                                marked_errors += kept - 1.0;
                            }
                            variance += weight.map_or(0.0, |weight| weight * (weight - 1.0));
                            count += 1;
                        }
                    }
                }
            }
            // Five and a half standard deviations.
            prop_assert!(errors.abs() < 5.5 * f64::sqrt(variance) + 1.0, "{} {}", errors, variance);
            prop_assert!(marked_errors.abs() < 5.5 * f64::sqrt(variance) + 1.0, "{}", marked_errors);
        }
    }
}
