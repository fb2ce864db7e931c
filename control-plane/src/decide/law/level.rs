use super::super::curve::Curve;
use super::caps::Cap;
use super::input::Law;
use super::output::{Clamp, Terms};

/// Most steps in which the interval in which the level lies gets smaller: a dozen are usual, and each third one halves it at least.
const STEPS: u32 = 120;
/// The level is found when its inflows, or the ends of the interval, are so near to each other, in parts of them.
const PRECISION: f64 = 1e-12;
/// Doublings in the search for its upper end.
const DOUBLINGS: u32 = 40;
/// Nearer to the most that all take together the level is not followed: there it has no end.
const NEAR_THE_MOST: f64 = 1.0 - 1e-6;

/// What one backend does at a level.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub(super) curve: Curve,
    /// The slowdown that the curve is at.
    pub(super) slowdown: f64,
    /// Requests that it has now.
    pub(super) in_flight: Option<f64>,
    /// How far that counts, 0 to 1.
    pub(super) freshness: f64,
    pub(super) trust: f64,
    pub(super) floor_rps: f64,
    pub(super) ceiling_rps: f64,
    /// Its part of the arrivals by capacity alone.
    pub(super) capacity_part_rps: f64,
    /// What its verdict leaves it, whatever its telemetry is trusted.
    pub(super) cap: Option<Cap>,
    /// So much higher the common level is for it, because it is dear.
    pub(super) surcharge_seconds: f64,
}

impl Side {
    fn correction(&self, target: f64, law: &Law) -> f64 {
        // One that does not tell is taken to be where it should be, but for a queue: in that it has its part.
        let unknown = (target - self.curve.places).max(0.0);
        let distance = self
            .in_flight
            .map_or(unknown, |now| self.freshness * (target - now) + (1.0 - self.freshness) * unknown);
        distance / law.correction_seconds
    }

    /// `n(l)`, with what its cost takes off the level.
    fn target(&self, level: f64, law: &Law) -> f64 {
        self.curve.in_flight_at(level - self.surcharge_seconds, law.barrier, law.waiting_price)
    }

    /// What it is given at a level when it has just what the level gives it, in parts of its capacity: above 1 requests wait.
    pub(super) fn load(&self, level: f64, law: &Law) -> f64 {
        let target = self.target(level, law);
        let queue = (target - self.curve.places).max(0.0) / law.correction_seconds;
        let holding =
            self.trust * (self.curve.rate(target) + queue) + (1.0 - self.trust) * self.capacity_part_rps;
        self.cap.map_or(holding, |cap| holding.min(cap.rps)) / self.curve.capacity_rps()
    }

    /// `r(l)`: grows with the level, or stays.
    fn inflow(&self, level: f64, law: &Law) -> f64 {
        let inflow = self.uncapped(level, law);
        self.cap.map_or(inflow, |cap| inflow.min(cap.rps))
    }

    fn uncapped(&self, level: f64, law: &Law) -> f64 {
        let target = self.target(level, law);
        let wanted = self.curve.rate(target) + self.correction(target, law);
        self.trust * wanted.clamp(self.floor_rps, self.ceiling_rps)
            + (1.0 - self.trust) * self.capacity_part_rps
    }

    /// The inflow that no level exceeds.
    fn most(&self) -> f64 {
        let most = self.trust * self.ceiling_rps + (1.0 - self.trust) * self.capacity_part_rps;
        self.cap.map_or(most, |cap| most.min(cap.rps))
    }

    /// All that makes up the inflow at a level.
    pub(super) fn terms(&self, level: f64, law: &Law) -> Terms {
        let target = self.target(level, law);
        let (holding, correction) = (self.curve.rate(target), self.correction(target, law));
        let capped = self.cap.filter(|cap| self.uncapped(level, law) > cap.rps);
        let clamp = if let Some(cap) = capped {
            Some(cap.clamp)
        } else if holding + correction < self.floor_rps {
            Some(Clamp::Floor)
        } else if holding + correction > self.ceiling_rps {
            Some(Clamp::Ceiling)
        } else {
            None
        };
        Terms {
            places: self.curve.places,
            capacity_rps: self.curve.capacity_rps(),
            slowdown: self.slowdown,
            in_flight: self.in_flight,
            target_in_flight: target,
            surcharge_seconds: self.surcharge_seconds,
            holding_rps: holding,
            correction_rps: correction,
            floor_rps: self.floor_rps,
            ceiling_rps: self.ceiling_rps,
            cap_rps: self.cap.map(|cap| cap.rps),
            clamp,
            trust: self.trust,
            inflow_rps: self.inflow(level, law),
            wanted_share: 0.0,
            smoothed_share: 0.0,
        }
    }
}

/// The level at which the wanted inflows add up to what arrives; the nearest one where they cannot.
pub(super) fn solve(sides: &[Side], arrivals_rps: f64, law: &Law) -> f64 {
    let arrivals_rps = arrivals_rps.min(NEAR_THE_MOST * sides.iter().map(Side::most).sum::<f64>());
    let missing = |level: f64| arrivals_rps - sides.iter().map(|side| side.inflow(level, law)).sum::<f64>();
    let full = sides.iter().map(|side| side.surcharge_seconds + side.curve.cost_when_full(law.barrier));
    let (mut low, mut high) = (0.0, full.fold(1e-9, f64::max));
    let (mut below, mut above) = (missing(low), missing(high));
    if below <= 0.0 {
        return low;
    }
    for _ in 0..DOUBLINGS {
        if above <= 0.0 {
            break;
        }
        (low, below) = (high, above);
        high *= 2.0;
        above = missing(high);
    }
    // The Illinois method: the chord between the ends; the value at an end that stays twice is halved. Where the inflows bend
    // it may be slow, so that each third step halves the interval.
    let mut was_low = None;
    for step in 1..=STEPS {
        if above > 0.0 || high - low <= PRECISION * high {
            break;
        }
        let chord = low + (high - low) * below / (below - above);
        let is_inside = low < chord && chord < high;
        let middle = if is_inside && step % 3 != 0 { chord } else { f64::midpoint(low, high) };
        let found = missing(middle);
        if found > 0.0 {
            (low, below) = (middle, found);
            if was_low.replace(true) == Some(true) {
                above /= 2.0;
            }
        } else {
            (high, above) = (middle, found);
            if was_low.replace(false) == Some(false) {
                below /= 2.0;
            }
            if -found <= PRECISION * arrivals_rps {
                break;
            }
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::{Mix, Profile};
    use super::*;

    fn side(speed: f64, in_flight: f64, surcharge_seconds: f64) -> Side {
        let profile = Profile {
            fixed_seconds: 0.01 / speed,
            per_sequence_seconds: 0.000_2 / speed,
            per_prompt_token_seconds: 0.000_05 / speed,
            per_kv_token_seconds: 1e-7 / speed,
            max_sequences: Some(64.0),
            kv_tokens: None,
            token_budget: Some(2048.0),
        };
        let curve = Curve::of_profile(&profile, &Mix::of(1000.0, 100.0)).unwrap();
        Side {
            curve,
            slowdown: 1.0,
            in_flight: Some(in_flight),
            freshness: 1.0,
            trust: 1.0,
            floor_rps: 0.01,
            ceiling_rps: 1.5 * curve.capacity_rps(),
            capacity_part_rps: 1.0,
            cap: None,
            surcharge_seconds,
        }
    }

    proptest! {
        #[test]
        fn inflows_add_up_to_what_arrives(
            backends in proptest::collection::vec((0.05..20.0f64, 0.0..200.0f64, 0.0..5.0f64), 1..20),
            load in 0.02..1.4f64,
        ) {
            let law = Law::default();
            let sides: Vec<Side> = backends.iter().map(|(speed, now, dear)| side(*speed, *now, *dear)).collect();
            let arrivals = load * sides.iter().map(|side| side.curve.capacity_rps()).sum::<f64>();
            let level = solve(&sides, arrivals, &law);
            let inflows: f64 = sides.iter().map(|side| side.inflow(level, &law)).sum();
            prop_assert!((inflows / arrivals - 1.0).abs() < 1e-6, "{inflows} of {arrivals} at {level}");
        }
    }
}
