use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use clairvoy_xds::{ClientStatus, ResourceType};

use crate::compile::{AccessLogIntent, RUNTIME_LAYER};
use crate::decide::Zone;
use crate::envoy::EnvoyNews;

use super::super::control::{Core, Input};
use super::super::show::takes;
use super::Controller;

/// Envoys up to which load is reported every two seconds; above, a report with its node of 60 kB costs too much.
const FEW_ENVOYS: usize = 100;
/// Where the shorter interval comes back, so that it does not go to and fro.
const FEW_AGAIN: usize = 80;
/// An Envoy asks for what it takes within this time.
const ASKS_WITHIN: TimeDelta = TimeDelta::seconds(15);
const SHORT_SECONDS: u64 = 2;
const LONG_SECONDS: u64 = 10;

impl Controller {
    /// Takes what Envoys tell, as far as it is about models, backends and groups of this fleet: names of others are
    /// neither remembered nor written down.
    pub(super) fn told(&mut self, news: EnvoyNews, now: DateTime<Utc>) {
        let Core { fleet, steering, .. } = &self.core;
        let input = match news {
            EnvoyNews::Load(mut load) => {
                load.models.retain(|model, _| fleet.has_model(model));
                load.endpoints.retain(|endpoint| fleet.backend(endpoint.address).is_some());
                load.groups.retain(|told| {
                    let steering = steering.get(&told.model);
                    let mut groups =
                        steering.into_iter().flat_map(|model| model.published.iter().chain(&model.spare));
                    groups.any(|group| group.name == told.group)
                });
                Input::Load(load)
            }
            EnvoyNews::Log(mut summary) => {
                summary.backends.retain(|address, _| fleet.backend(*address).is_some());
                summary.unplaced.retain(|model, _| fleet.has_model(model));
                summary.lanes.retain(|model, _| fleet.has_model(model));
                summary.parts.retain(|model, _| fleet.has_model(model));
                Input::Log { at: now, summary }
            }
        };
        // It is refused by nobody.
        let _ = self.feed(input, now);
    }

    /// Looks which Envoys are connected, and asks for reports as often as their number allows.
    pub(super) fn look_who_is_connected(&mut self, now: DateTime<Utc>) {
        let clients = self.outputs.xds.clients();
        // One without a group belongs to no gateway, and its reports are not heard.
        let nodes: BTreeSet<String> = clients
            .iter()
            .filter(|client| client.group.is_some())
            .map(|client| client.node_id.clone())
            .collect();
        self.look_for_old_bootstraps(&clients, &nodes, now);
        let report_seconds = report_seconds(nodes.len(), self.report_seconds);
        let zones = self.zones_of(&clients);
        if report_seconds == self.report_seconds && nodes == self.core.connected && zones == self.zones {
            return;
        }
        self.zones.clone_from(&zones);
        if report_seconds != self.report_seconds {
            self.report_seconds = report_seconds;
            // Both intervals are lawful.
            let interval = Duration::from_secs(report_seconds);
            let _ = self.outputs.load_reports.set_load_reporting_interval(interval);
        }
        let _ = self.feed(Input::Connected { nodes, report_seconds, zones }, now);
    }

    /// How many Envoys are in each zone that is known, as far as any model asks for it.
    fn zones_of(&self, clients: &[ClientStatus]) -> Vec<(Zone, u32)> {
        let config = &self.core.config;
        if !config.prefers_zones() {
            return Vec::new();
        }
        let of_gateways = clients.iter().filter(|client| client.group.is_some());
        let nodes: BTreeSet<(&str, Zone)> = of_gateways
            .filter_map(|client| {
                Some((client.node_id.as_str(), Zone::of_node(&client.region, &client.zone)?))
            })
            .filter(|(_, zone)| config.knows(zone))
            .collect();
        let mut zones = BTreeMap::<Zone, u32>::new();
        for (_, zone) in nodes {
            *zones.entry(zone).or_default() += 1;
        }
        zones.into_iter().collect()
    }

    /// Notes Envoys that take routes, but not the runtime layer: each once while it is connected.
    fn look_for_old_bootstraps(
        &mut self,
        clients: &[ClientStatus],
        nodes: &BTreeSet<String>,
        now: DateTime<Utc>,
    ) {
        self.without_layer.retain(|node| nodes.contains(node));
        let lacks_it = |client: &&ClientStatus| {
            let connected_for = now - DateTime::<Utc>::from(client.connected_at);
            client.group.is_some()
                && connected_for > ASKS_WITHIN
                && takes(client, ResourceType::RouteConfiguration)
                && !takes(client, ResourceType::Runtime)
        };
        for client in clients.iter().filter(lacks_it) {
            if self.without_layer.insert(client.node_id.clone()) {
                let message = format!(
                    "Envoy {} has no runtime layer `{RUNTIME_LAYER}` and goes by capacity shares only: write its bootstrap \
                     anew by `clairvoy bootstrap`",
                    client.node_id
                );
                self.note("warning", message, now);
            }
        }
    }

    /// The access log that every gateway's listener gets.
    pub(super) fn access_log(&self) -> Option<AccessLogIntent> {
        let settings = &self.core.config.telemetry.access_log;
        settings.enabled.then(|| AccessLogIntent {
            cluster: settings.cluster.clone(),
            stream_interval: settings.stream_interval,
            token: self.outputs.log_token.clone(),
            tokens: [&settings.prompt_tokens, &settings.output_tokens]
                .into_iter()
                .flatten()
                .cloned()
                .collect(),
        })
    }
}

/// How often so many Envoys are asked to report when they were asked for the interval `before`, seconds; 0 for not yet.
fn report_seconds(envoys: usize, before: u64) -> u64 {
    let few = if before == LONG_SECONDS { FEW_AGAIN } else { FEW_ENVOYS };
    if envoys > few { LONG_SECONDS } else { SHORT_SECONDS }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_interval_is_long_above_a_hundred_envoys_and_short_again_at_eighty() {
        let mut seconds = 0;
        let mut after = |envoys| {
            seconds = report_seconds(envoys, seconds);
            seconds
        };
        for (envoys, expected) in [
            (0, 2),
            (1, 2),
            (100, 2),
            (101, 10),
            (100, 10),
            (81, 10),
            (80, 2),
            (100, 2),
            (20_000, 10),
            (0, 2),
        ] {
            assert_eq!(after(envoys), expected, "{envoys} Envoys");
        }
    }

    proptest! {
        #[test]
        fn a_few_that_come_and_go_do_not_change_it_to_and_fro(counts in prop::collection::vec(81usize..=100, 1..50)) {
            for begin in [SHORT_SECONDS, LONG_SECONDS] {
                let end = counts.iter().fold(begin, |before, count| report_seconds(*count, before));
                prop_assert_eq!(begin, end);
            }
        }
    }
}
