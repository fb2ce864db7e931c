use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::broadcast::{self, error::RecvError};

use clairvoy_xds::{ClientEvent, ClientStatus, ResourceType, Snapshot, SnapshotBuilder, SyncState};

use crate::compile::{Intent, RUNTIME_TTL, compile};
use crate::envoy::parts_of_group;

use super::super::show::takes;
use super::super::turns::STOPS;
use super::{Controller, clock};

/// Longest wait at the end for Envoys to take that they are to go by capacity shares.
const STEP_DOWN: Duration = Duration::from_secs(2);

impl Controller {
    /// Compiles and publishes what every gateway's Envoys should do. A faulty snapshot is never sent: the one before it
    /// stays, and an event says what is wrong.
    pub(super) fn publish(&mut self, now: DateTime<Utc>) {
        let models = self.core.intents(!self.is_leaving, now);
        self.stood_by.clear();
        self.sent.clear();
        let mut groups = BTreeSet::new();
        for gateway in self.core.config.gateways() {
            let name = gateway.name.clone();
            let resources =
                compile(&Intent { gateway, models: models.clone(), access_log: self.access_log() });
            let mut builder = self.builder();
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
            builder.runtime_with_ttl(resources.runtime, RUNTIME_TTL);
            match builder.build() {
                Ok(snapshot) => {
                    groups.extend(self.publish_zones(&name, &models, &snapshot, now));
                    groups.extend(self.publish_canaries(&name, &models, &snapshot, now));
                    self.send(&name, snapshot);
                    self.published_once = true;
                    self.stood_by.insert(name);
                }
                Err(faults) => {
                    self.note("error", format!("gateway {name} keeps its last state: {faults}"), now);
                    let before = self.outputs.zone_groups.load();
                    groups.extend(before.iter().filter(|group| parts_of_group(group).0 == name).cloned());
                }
            }
        }
        self.regroup_zones(groups);
    }

    /// Publishes what the Envoys of a group are to have.
    pub(super) fn send(&mut self, group: &str, snapshot: Snapshot) {
        self.sent.extend(self.outputs.xds.publish(group, snapshot));
    }

    /// A builder that takes what Clairvoy makes.
    pub(super) fn builder(&self) -> SnapshotBuilder {
        let mut builder = SnapshotBuilder::new();
        // A model whose backends are all gone keeps its route, which then answers that there are none.
        builder.allow_empty_assignments().allow_spare_localities();
        // It is in the Envoys' bootstrap.
        builder.external_cluster(self.core.config.telemetry.access_log.cluster.as_str());
        builder
    }

    /// Stands by what was published, for another few seconds. Envoys whose gateway nobody stands by go over to capacity
    /// shares, so this is to be called only right after all was decided anew.
    pub(super) fn stand_by(&self) {
        for gateway in &self.stood_by {
            self.outputs.xds.confirm(gateway);
        }
    }

    /// Tells the Envoys to go by capacity shares, and waits until they have it, but not for long.
    pub(super) async fn step_down(&mut self, news: &mut broadcast::Receiver<ClientEvent>) {
        self.is_leaving = true;
        self.note("info", STOPS.to_owned(), clock());
        if !self.published_once {
            return;
        }
        self.publish(clock());
        let told = async {
            while !self.outputs.xds.clients().iter().all(has_answered) {
                // One that is behind misses what it has seen otherwise.
                if matches!(news.recv().await, Err(RecvError::Closed)) {
                    return;
                }
            }
        };
        if tokio::time::timeout(STEP_DOWN, told).await.is_err() {
            tracing::warn!("not every Envoy has taken that it is to go by capacity shares");
        }
    }
}

/// Whether a client has nothing to be told any more, or takes no runtime layers.
fn has_answered(client: &ClientStatus) -> bool {
    client.group.is_none() || !takes(client, ResourceType::Runtime) || client.sync != SyncState::Pending
}
