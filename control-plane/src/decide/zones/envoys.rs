use std::collections::BTreeMap;

use super::Zone;
use super::input::{NodeZone, ZonesState};

impl ZonesState {
    /// Envoys among which the requests of a group arrive, as its requests meet them in the mean: those of the fleet where all
    /// zones do the same, those of one zone where each keeps to its own groups. None where no zone has shares of its own.
    pub fn envoys_of_a_group(&self, zones: &[NodeZone]) -> Option<f64> {
        let envoys: BTreeMap<&Zone, u32> = zones.iter().map(|zone| (&zone.zone, zone.envoys)).collect();
        let mut groups = BTreeMap::<&str, (f64, f64)>::new();
        for (zone, flow) in &self.zones {
            let envoys = f64::from(envoys.get(zone).copied().unwrap_or(1).max(1));
            for (group, share) in &flow.shares {
                let part = flow.demand_share * share;
                let (sum, squares) = groups.entry(group).or_default();
                *sum += part;
                *squares += part * part / envoys;
            }
        }
        // Of a group's requests the part w of a zone is spread over its n Envoys, and meets w / n of them in each.
        let of_group = |(sum, squares): &(f64, f64)| if *sum > 0.0 { squares / sum } else { 0.0 };
        let met: f64 = groups.values().map(of_group).sum();
        let all: f64 = groups.values().map(|(sum, _)| sum).sum();
        (met > 0.0).then(|| all / met)
    }
}
