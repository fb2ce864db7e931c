use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use clairvoy_xds::{ResourceType, Snapshot};

use crate::compile::{ModelIntent, RUNTIME_TTL, compile_canary};
use crate::envoy::canary_group;

use super::Controller;

impl Controller {
    /// Says of which requests the parts of canaries are compared.
    pub(super) fn compare(&self) {
        let since = self.core.compared_since();
        if **self.outputs.compared_since.load() != since {
            self.outputs.compared_since.store(Arc::new(since));
        }
    }

    /// Publishes what those Envoys of a group, a gateway's or a zone's, are to have that are steered with shares of proxies: the
    /// state of the group, but for the runtime layer. Returns the names of their groups.
    pub(super) fn publish_canaries(
        &mut self,
        group: &str,
        models: &[ModelIntent],
        state: &Snapshot,
        now: DateTime<Utc>,
    ) -> Vec<String> {
        let shares: BTreeSet<u32> = models.iter().filter_map(|model| model.steered_proxies).collect();
        let mut groups = Vec::with_capacity(shares.len());
        for percent in shares {
            let name = canary_group(group, percent);
            let mut builder = self.builder();
            builder.based_on(state);
            for resource_type in ResourceType::ALL {
                let kept = state.names(resource_type).filter(|_| resource_type != ResourceType::Runtime);
                for kept in kept {
                    builder.keep(resource_type, kept);
                }
            }
            builder.runtime_with_ttl(compile_canary(models, percent), RUNTIME_TTL);
            match builder.build() {
                Ok(snapshot) => {
                    self.send(&name, snapshot);
                    self.stood_by.insert(name.clone());
                    groups.push(name);
                }
                Err(faults) => {
                    let message = format!("the canaries of {group} keep their last state: {faults}");
                    self.note("error", message, now);
                    groups.extend(self.outputs.zone_groups.load().get(&name).cloned());
                }
            }
        }
        groups
    }
}
