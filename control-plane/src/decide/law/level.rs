use super::super::curve::Curve;
use super::caps::Cap;
use super::input::Law;
use super::output::{Clamp, Terms};

/// Halvings of the interval in which the level lies.
const STEPS: u32 = 45;
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
    let total = |level: f64| sides.iter().map(|side| side.inflow(level, law)).sum::<f64>();
    let arrivals_rps = arrivals_rps.min(NEAR_THE_MOST * sides.iter().map(Side::most).sum::<f64>());
    let full = sides.iter().map(|side| side.surcharge_seconds + side.curve.cost_when_full(law.barrier));
    let (mut low, mut high) = (0.0, full.fold(1e-9, f64::max));
    for _ in 0..DOUBLINGS {
        if total(high) >= arrivals_rps {
            break;
        }
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if total(middle) < arrivals_rps {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}
