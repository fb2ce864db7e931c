use serde::{Deserialize, Serialize};

/// A mean that forgets exponentially: after `half_life` more values, an old one weighs half.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct ForgettingMean {
    keep: f64,
    sum: f64,
    weight: f64,
}

impl ForgettingMean {
    pub(crate) fn new(half_life: f64) -> Self {
        Self { keep: (-std::f64::consts::LN_2 / half_life.max(1.0)).exp(), sum: 0.0, weight: 0.0 }
    }

    pub(crate) fn add(&mut self, value: f64) {
        self.sum = self.sum * self.keep + value;
        self.weight = self.weight * self.keep + 1.0;
    }

    pub(crate) fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_weight_is_newer_than_the_half_life() {
        let mut mean = ForgettingMean::new(10.0);
        assert_eq!(mean.mean(), None);
        for _ in 0..1000 {
            mean.add(4.0);
        }
        for _ in 0..10 {
            mean.add(8.0);
        }
        assert!((mean.mean().unwrap() - 6.0).abs() < 1e-6);
    }
}
