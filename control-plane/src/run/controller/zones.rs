use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use clairvoy_xds::{ResourceType, Snapshot};

use crate::compile::{ModelIntent, compile_zone};
use crate::decide::Zone;
use crate::envoy::{parts_of_group, zone_group};

use super::Controller;

impl Controller {
    /// Publishes what the Envoys of a gateway are to have in zones with shares of their own: the state of the gateway, but for
    /// the assignments of some models. Returns the names of their groups.
    pub(super) fn publish_zones(
        &mut self,
        gateway: &str,
        models: &[ModelIntent],
        state: &Snapshot,
        now: DateTime<Utc>,
    ) -> Vec<String> {
        let zones: BTreeSet<&Zone> =
            models.iter().flat_map(|model| &model.views).map(|view| &view.zone).collect();
        let mut groups = Vec::with_capacity(zones.len());
        for zone in zones {
            let name = zone_group(gateway, zone);
            let own = compile_zone(models, zone);
            let names: BTreeSet<String> =
                own.iter().map(|assignment| assignment.cluster_name.clone()).collect();
            let mut builder = self.builder();
            builder.based_on(state);
            for resource_type in ResourceType::ALL {
                let is_own = |name: &&str| {
                    resource_type == ResourceType::ClusterLoadAssignment && names.contains(*name)
                };
                for kept in state.names(resource_type).filter(|name| !is_own(name)) {
                    builder.keep(resource_type, kept);
                }
            }
            for assignment in own {
                builder.assignment(assignment);
            }
            match builder.build() {
                Ok(snapshot) => {
                    groups.extend(self.publish_canaries(&name, models, &snapshot, now));
                    self.send(&name, snapshot);
                    self.stood_by.insert(name.clone());
                    groups.push(name);
                }
                Err(faults) => {
                    let message = format!("zone {zone} of gateway {gateway} keeps its last state: {faults}");
                    self.note("error", message, now);
                    let before = self.outputs.zone_groups.load();
                    let zone = zone.to_string();
                    // Its canaries, too.
                    let is_of_zone =
                        |group: &&String| parts_of_group(group) == (gateway, Some(zone.as_str()));
                    groups.extend(before.iter().filter(is_of_zone).cloned());
                }
            }
        }
        groups
    }

    /// Brings Envoys into the groups that there are now. Those of groups that are no more go by the state of their gateway.
    pub(super) fn regroup_zones(&mut self, groups: BTreeSet<String>) {
        let before = self.outputs.zone_groups.load_full();
        if *before == groups {
            return;
        }
        let gone: Vec<String> = before.difference(&groups).cloned().collect();
        self.outputs.zone_groups.store(Arc::new(groups));
        self.outputs.xds.regroup();
        for group in gone {
            self.outputs.xds.withdraw(&group);
        }
    }
}
