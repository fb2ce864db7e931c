//! The sixteen machines.

use serde::{Deserialize, Serialize};

use crate::Profile;

use super::gpu::Gpu;

/// Machines of each class.
const PER_CLASS: usize = 4;
/// Every time is this much longer than on the GPUs, as with a model that is so much larger: the fleet then takes tens of requests
/// per second, which two cores can carry through real Envoys without being the bottleneck.
const SLOWNESS: f64 = 4.0;

/// One simulated backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// How fast it is.
    pub class: Gpu,
    /// True when it stands in the zone that dies: one of each class.
    pub in_second_zone: bool,
}

impl Machine {
    /// The zone that it stands in, where a cell has two.
    pub fn zone(&self) -> &'static str {
        if self.in_second_zone { "zone-b" } else { "zone-a" }
    }
}

/// The fleet: four machines of each class, fastest first, the last of each class in the second zone.
pub fn machines() -> Vec<Machine> {
    Gpu::ALL.into_iter().flat_map(|class| [class; PER_CLASS].into_iter().enumerate()).map(machine).collect()
}

/// As many machines that are all alike.
pub fn machines_alike() -> Vec<Machine> {
    let classes = [Gpu::L40s; PER_CLASS].into_iter().enumerate();
    Gpu::ALL.into_iter().flat_map(|_| classes.clone()).map(machine).collect()
}

fn machine((number, class): (usize, Gpu)) -> Machine {
    Machine { class, in_second_zone: number + 1 == PER_CLASS }
}

/// The engine of a class when the clock runs `speed` times as fast.
pub fn profile(class: Gpu, speed: f64) -> Profile {
    class.profile().slowed(SLOWNESS / speed)
}

/// What the fleet takes, in requests per second, when one machine of each class takes `rps`.
pub fn capacity_rps(machines: &[Machine], rps: &[f64; Gpu::ALL.len()]) -> f64 {
    machines.iter().map(|machine| rps[machine.class as usize]).sum()
}

/// The part of the fleet's capacity that each machine has; they sum to 1.
pub fn capacity_shares(machines: &[Machine], rps: &[f64; Gpu::ALL.len()]) -> Vec<f64> {
    let total = capacity_rps(machines, rps);
    machines.iter().map(|machine| rps[machine.class as usize] / total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_has_one_machine_in_the_second_zone() {
        let machines = machines();
        assert_eq!(machines.len(), 16);
        for class in Gpu::ALL {
            let of_class = machines.iter().filter(|machine| machine.class == class);
            assert_eq!(of_class.filter(|machine| machine.in_second_zone).count(), 1);
        }
    }

    #[test]
    fn shares_follow_capacity() {
        let shares = capacity_shares(&machines(), &[4.0, 2.0, 1.0, 1.0]);
        assert!(
            capacity_shares(&machines_alike(), &[4.0, 2.0, 1.0, 1.0])
                .iter()
                .all(|share| *share == 1.0 / 16.0)
        );
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!((shares[0], shares[15]), (4.0 / 32.0, 1.0 / 32.0));
    }
}
