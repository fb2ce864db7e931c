/// No entry stands for more than this many lost ones.
const MOST_FACTOR: f64 = 100.0;

/// Makes up for entries that found no room before anyone read them. Which were lost has nothing to do with what they say,
/// so those that came through stand for them.
#[derive(Debug, Default)]
pub struct Losses {
    received: u64,
    lost_before: u64,
}

impl Losses {
    /// Counts entries that came through, of whatever kind.
    pub fn received(&mut self, entries: usize) {
        self.received += entries as u64;
    }

    /// For how many entries each of those since the last call stands, with so many lost in all: 1 without losses. Losses
    /// of a time in which none came through are made up for by the next ones.
    pub fn factor(&mut self, lost_in_all: u64) -> f64 {
        if self.received == 0 {
            return 1.0;
        }
        let lost = lost_in_all.saturating_sub(self.lost_before);
        let factor = 1.0 + lost as f64 / self.received as f64;
        *self = Self { received: 0, lost_before: lost_in_all };
        factor.min(MOST_FACTOR)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::Sampler;
    use super::*;

    #[test]
    fn what_is_lost_while_none_comes_through_is_made_up_for_later() {
        let mut losses = Losses::default();
        assert_eq!(losses.factor(0), 1.0);
        losses.received(10);
        assert_eq!(losses.factor(0), 1.0);
        assert_eq!(losses.factor(5), 1.0);
        losses.received(10);
        assert_eq!(losses.factor(10), 2.0);
        losses.received(1);
        assert_eq!(losses.factor(1_000_000), MOST_FACTOR);
        losses.received(1);
        assert_eq!(losses.factor(1_000_000), 1.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Batches that are lost by chance, and entries that are sampled: sums stay those of all entries.
        #[test]
        fn sums_are_unbiased_though_batches_are_lost(
            rates in prop::collection::vec(1u32..20, 2..8), lost_part in 0.0..0.9f64, seed in any::<u64>(),
        ) {
            let (mut estimated, mut sent) = (0.0, 0.0);
            for round in 0..30 {
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(round));
                let (mut losses, mut sampler) = (Losses::default(), Sampler::new(200.0, seed ^ round));
                let (mut lost, mut sum, mut now) = (0, 0.0, 0.0);
                for rate in &rates {
                    for _ in 0..100 {
                        now += 0.01;
                        sampler.now(now);
                        sent += f64::from(*rate);
                        if random.random::<f64>() < lost_part {
                            lost += u64::from(*rate);
                            continue;
                        }
                        losses.received(*rate as usize);
                        sum += (0..*rate).filter_map(|_| sampler.take()).sum::<f64>();
                    }
                    estimated += sum * losses.factor(lost);
                    sum = 0.0;
                }
            }
            let error: f64 = estimated / sent - 1.0;
            prop_assert!(error.abs() < 0.05, "{} of {}", estimated, sent);
        }
    }
}
