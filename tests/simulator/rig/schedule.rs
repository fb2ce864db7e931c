//! Who asks for what, and when: drawn once and played to every policy.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1};
use serde::{Deserialize, Serialize};

use crate::history::{RequestSize, SeriesError};

use super::cell::SizeSet;
use super::plan::Plan;

/// One request to come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Arrival {
    /// When, simulated seconds; measuring begins at 0.
    pub at: f64,
    /// Through which Envoy.
    pub gateway: usize,
    /// From which set its size is.
    pub sizes: SizeSet,
    /// How long it is.
    #[serde(with = "pair")]
    pub size: RequestSize,
}

impl Arrival {
    /// True when it counts.
    pub fn is_measured(&self, plan: &Plan) -> bool {
        (0.0..plan.measured_seconds).contains(&self.at)
    }
}

/// Draws the requests of a plan: a Poisson process in each stretch, sizes and Envoys at random.
///
/// # Errors
/// When the compiled-in sizes are damaged.
pub fn schedule(plan: &Plan, gateways: usize, seed: u64) -> Result<Vec<Arrival>, SeriesError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut arrivals = Vec::new();
    for stretch in &plan.stretches {
        let sizes = stretch.sizes.sizes()?;
        let mut at = stretch.from;
        loop {
            let gap: f64 = Exp1.sample(&mut rng);
            at += gap / stretch.rps;
            if at >= stretch.until {
                break;
            }
            let size = sizes[rng.random_range(0..sizes.len())];
            arrivals.push(Arrival { at, gateway: rng.random_range(0..gateways), sizes: stretch.sizes, size });
        }
    }
    Ok(arrivals)
}

/// A size as `[prompt, output]`.
mod pair {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::history::RequestSize;

    pub(super) fn serialize<S: Serializer>(size: &RequestSize, serializer: S) -> Result<S::Ok, S::Error> {
        (size.prompt_tokens, size.output_tokens).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RequestSize, D::Error> {
        let (prompt_tokens, output_tokens) = Deserialize::deserialize(deserializer)?;
        Ok(RequestSize { prompt_tokens, output_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Stretch;
    use super::*;

    fn plan() -> Plan {
        let stretch = |from, until, sizes, rps| Stretch { from, until, sizes, rps };
        Plan {
            measured_seconds: 200.0,
            stretches: vec![
                stretch(-100.0, 100.0, SizeSet::Code, 40.0),
                stretch(100.0, 210.0, SizeSet::Heavy, 10.0),
            ],
            events: Vec::new(),
        }
    }

    #[test]
    fn equal_seeds_give_equal_schedules() {
        let drawn = schedule(&plan(), 4, 5).unwrap();
        assert_eq!(drawn, schedule(&plan(), 4, 5).unwrap());
        assert_ne!(drawn, schedule(&plan(), 4, 6).unwrap());
        let text = serde_json::to_string(&drawn).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Arrival>>(&text).unwrap(), drawn);
    }

    #[test]
    fn each_stretch_has_its_rate_and_its_sizes() {
        let drawn = schedule(&plan(), 4, 5).unwrap();
        assert!(drawn.is_sorted_by(|a, b| a.at <= b.at));
        let count = |set| drawn.iter().filter(|arrival| arrival.sizes == set).count() as f64;
        // Five standard deviations of the Poisson counts.
        assert!((count(SizeSet::Code) - 8000.0).abs() < 450.0, "{}", count(SizeSet::Code));
        assert!((count(SizeSet::Heavy) - 1100.0).abs() < 166.0, "{}", count(SizeSet::Heavy));
        assert!(drawn.iter().all(|arrival| (arrival.sizes == SizeSet::Code) == (arrival.at < 100.0)));
        for gateway in 0..4 {
            let part = drawn.iter().filter(|arrival| arrival.gateway == gateway).count() as f64;
            assert!((part / drawn.len() as f64 - 0.25).abs() < 0.03);
        }
    }

    #[test]
    fn only_the_middle_is_measured() {
        let plan = plan();
        let drawn = schedule(&plan, 4, 5).unwrap();
        let measured: Vec<_> = drawn.iter().filter(|arrival| arrival.is_measured(&plan)).collect();
        assert!(measured.first().is_some_and(|first| first.at >= 0.0));
        assert!(measured.last().is_some_and(|last| last.at < 200.0));
    }
}
