use chrono::{DateTime, Utc};

use crate::config::Model;
use crate::decide::{MOST_ZONES, NodeZone};
use crate::envoy::NodeLoad;

use super::Core;

/// Time over which everyone has to have reported, seconds.
const WINDOW_SECONDS: f64 = 10.0;

impl Core {
    /// Takes what arrives in a zone, as far as a model asks for it.
    pub(super) fn hear_zone(&mut self, load: &NodeLoad) {
        let models = &self.config.models;
        let wanted = |name: &str| {
            let model = models.iter().find(|model| model.name == name);
            model.is_some_and(|model| model.balance.zone_preference > 0.0)
        };
        self.zones.heard(load, wanted);
    }

    /// Looks which zones have Envoys.
    pub(super) fn look_at_zones(&mut self, now: DateTime<Utc>) {
        if !self.config.prefers_zones() {
            self.zones.clear();
        } else if let Some(left_out) = self.zones.look(now) {
            let message = format!(
                "there are Envoys in more than {MOST_ZONES} zones: those of {left_out} zones go by the shares of the fleet"
            );
            self.note("warning", message);
        }
    }

    /// The zones of Envoys and their demand for a model that asks for them.
    pub(super) fn node_zones(&self, model: &Model) -> Vec<NodeZone> {
        if model.balance.zone_preference <= 0.0 {
            return Vec::new();
        }
        self.zones.demand(&model.name, self.fleet.reports().known_until(WINDOW_SECONDS))
    }
}
