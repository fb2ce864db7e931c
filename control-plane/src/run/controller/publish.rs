use chrono::{DateTime, Utc};

use clairvoy_xds::SnapshotBuilder;

use crate::compile::{Intent, ModelIntent, compile};

use super::Controller;

impl Controller {
    /// Compiles and publishes what every gateway's Envoys should do. A faulty snapshot is never sent: the one before it
    /// stays, and an event says what is wrong.
    pub(super) fn publish(&mut self, now: DateTime<Utc>) {
        let mut models: Vec<ModelIntent> = self
            .core
            .config
            .models
            .iter()
            .filter_map(|model| {
                self.core.steering.get(&model.name).map(|steering| steering.intent(model, &self.core.config))
            })
            .collect();
        models.sort_by(|left, right| left.name.cmp(&right.name));
        for gateway in self.core.config.gateways() {
            let name = gateway.name.clone();
            let resources =
                compile(&Intent { gateway, models: models.clone(), access_log: self.access_log() });
            let mut builder = SnapshotBuilder::new();
            // A model whose backends are all gone keeps its route, which then answers that there are none.
            builder.allow_empty_assignments();
            // It is in the Envoys' bootstrap.
            builder.external_cluster(self.core.config.telemetry.access_log.cluster.as_str());
            if let Some(last) = self.outputs.xds.newest(&name) {
                builder.based_on(&last);
            }
            builder.listener(resources.listener).route_configuration(resources.routes);
            for cluster in resources.clusters {
                builder.cluster(cluster);
            }
            for assignment in resources.assignments {
                builder.assignment(assignment);
            }
            match builder.build() {
                Ok(snapshot) => {
                    self.outputs.xds.publish(&name, snapshot);
                    self.published_once = true;
                }
                Err(faults) => {
                    self.note("error", format!("gateway {name} keeps its last state: {faults}"), now)
                }
            }
        }
    }
}
