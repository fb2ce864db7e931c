//! A client that behaves as proxies do: it applies responses, asks for the endpoints of its clusters and
//! the routes of its listeners, and checks what it is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::Response;
use crate::resource_type::ResourceType::{
    Cluster, ClusterLoadAssignment, Listener as Lds, RouteConfiguration as Rds,
};
use crate::resource_type::{PerType, ResourceType};

pub(super) fn decode<M: Message + Default>(response: &Response) -> M {
    let length = response.message.len();
    let (head, body) = response.message.clone().into_parts();
    let bytes = [&head[5..], &body[..]].concat();
    assert_eq!(bytes.len(), length);
    M::decode(bytes.as_slice()).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Holding {
    version: String,
    /// Clusters of a route configuration, route configurations of a listener, the assignment of a cluster.
    names: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct FakeClient {
    held: PerType<BTreeMap<String, Holding>>,
    subscribed: PerType<BTreeSet<String>>,
    /// Names that may be sent again although they did not change.
    may_repeat: PerType<BTreeSet<String>>,
    /// Names subscribed to since a version was refused.
    asked_again: PerType<BTreeSet<String>>,
    /// Versions that the client refuses.
    pub(super) poison: BTreeSet<String>,
    /// Names and versions refused alone.
    refused: PerType<BTreeSet<(String, String)>>,
    pub(super) to_server: VecDeque<DeltaDiscoveryRequest>,
    pub(super) to_client: VecDeque<DeltaDiscoveryResponse>,
}

impl FakeClient {
    /// Opens a stream, with what is held from an earlier one.
    pub(super) fn connect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        for t in ResourceType::ALL {
            self.may_repeat[t].clear();
            self.refused[t].clear();
            let versions = self.held[t].iter().map(|(name, holding)| (name.clone(), holding.version.clone()));
            let request = DeltaDiscoveryRequest {
                initial_resource_versions: versions.collect(),
                ..self.request(t, self.subscribed[t].iter().cloned().collect(), Vec::new())
            };
            if t.empty_means_wildcard() || !self.subscribed[t].is_empty() {
                self.to_server.push_back(request);
            }
        }
    }

    /// Applies the next response, if one has come.
    pub(super) fn receive(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let t = ResourceType::from_type_url(&response.type_url).unwrap();
        let answer = DeltaDiscoveryRequest {
            response_nonce: response.nonce.clone(),
            ..self.request(t, Vec::new(), Vec::new())
        };
        let mut names: BTreeSet<&String> = response.resources.iter().map(|resource| &resource.name).collect();
        names.extend(&response.removed_resources);
        let listed = response.resources.len() + response.removed_resources.len();
        assert_eq!(names.len(), listed, "a name came twice in one response");

        // Only what the client was told since lets the server send a refused version again.
        self.refused[t].retain(|(name, version)| {
            !names.contains(name)
                || response.resources.iter().any(|r| r.name == *name && r.version == *version)
        });
        if response.resources.iter().any(|resource| self.poison.contains(&resource.version)) {
            if let [resource] = &response.resources[..] {
                let key = (resource.name.clone(), resource.version.clone());
                let first = self.refused[t].insert(key) || self.asked_again[t].remove(&resource.name);
                assert!(first, "{t} {} came again after a NACK", resource.name);
            }
            // The server cannot know what is held now, and takes it that the dependents are awaited.
            self.may_repeat[t].extend(response.removed_resources.iter().cloned());
            for resource in &response.resources {
                let value = &resource.resource.as_ref().unwrap().value;
                self.may_repeat[t].insert(resource.name.clone());
                self.expect_dependents(t, &names_in(t, &resource.name, value));
            }
            let error_detail = Some(Status { code: 13, message: "poison".into(), ..Default::default() });
            self.to_server.push_back(DeltaDiscoveryRequest { error_detail, ..answer });
            return;
        }
        for resource in &response.resources {
            if !t.empty_means_wildcard() && !self.subscribed[t].contains(&resource.name) {
                continue;
            }
            self.hold(
                t,
                resource.name.clone(),
                &resource.version,
                &resource.resource.as_ref().unwrap().value,
            );
        }
        for name in &response.removed_resources {
            self.held[t].remove(name);
        }
        self.check_references();
        match t {
            Cluster => self.subscribe_to_named(Cluster, ClusterLoadAssignment),
            Lds => self.subscribe_to_named(Lds, Rds),
            _ => {}
        }
        self.to_server.push_back(answer);
    }

    fn hold(&mut self, t: ResourceType, name: String, version: &str, value: &[u8]) {
        let names = names_in(t, &name, value);
        let unchanged = self.held[t].get(&name).is_some_and(|holding| holding.version == version);
        let may_repeat = self.may_repeat[t].remove(&name);
        assert!(!unchanged || may_repeat, "{t} {name} came again unchanged");
        self.expect_dependents(t, &names);
        self.held[t].insert(name, Holding { version: version.into(), names });
    }

    /// What a cluster or a listener names is sent again with it.
    fn expect_dependents(&mut self, t: ResourceType, names: &[String]) {
        let dependent = match t {
            Cluster => ClusterLoadAssignment,
            Lds => Rds,
            _ => return,
        };
        self.may_repeat[dependent].extend(names.iter().cloned());
    }

    /// Every cluster that a route in use names is there, with endpoints.
    fn check_references(&self) {
        if !self.poison.is_empty() {
            return;
        }
        let in_use = self.held[Lds].values().flat_map(|listener| &listener.names);
        for (name, routes) in in_use.filter_map(|name| self.held[Rds].get_key_value(name)) {
            for cluster in &routes.names {
                assert!(
                    self.held[Cluster].contains_key(cluster),
                    "{name} names {cluster}, which is not there"
                );
                assert!(
                    self.held[ClusterLoadAssignment].contains_key(cluster),
                    "{name} names {cluster}, which has no endpoints"
                );
            }
        }
    }

    fn subscribe_to_named(&mut self, from: ResourceType, t: ResourceType) {
        let wanted: BTreeSet<String> =
            self.held[from].values().flat_map(|holding| holding.names.clone()).collect();
        let new: Vec<_> = wanted.difference(&self.subscribed[t]).cloned().collect();
        let gone: Vec<_> = self.subscribed[t].difference(&wanted).cloned().collect();
        for name in &gone {
            self.held[t].remove(name);
        }
        self.subscribed[t] = wanted;
        self.asked_again[t].extend(new.iter().cloned());
        if !new.is_empty() || !gone.is_empty() {
            self.to_server.push_back(self.request(t, new, gone));
        }
    }

    fn request(
        &self,
        t: ResourceType,
        subscribe: Vec<String>,
        unsubscribe: Vec<String>,
    ) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: t.type_url().into(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            ..Default::default()
        }
    }

    /// Names and versions held, by type.
    pub(super) fn held(&self, t: ResourceType) -> BTreeMap<String, String> {
        self.held[t].iter().map(|(name, holding)| (name.clone(), holding.version.clone())).collect()
    }
}

/// What a resource names: a cluster its assignment, a listener its routes, routes their clusters.
pub(super) fn names_in(t: ResourceType, name: &str, value: &[u8]) -> Vec<String> {
    match t {
        Cluster => vec![name.to_owned()],
        Lds => vec![Listener::decode(value).unwrap().stat_prefix],
        Rds => {
            let config = RouteConfiguration::decode(value).unwrap();
            let routes = config.virtual_hosts.iter().flat_map(|host| &host.routes);
            routes.map(cluster_of).collect()
        }
        _ => Vec::new(),
    }
}

fn cluster_of(route: &envoy_types::pb::envoy::config::route::v3::Route) -> String {
    use envoy_types::pb::envoy::config::route::v3::route::Action;
    use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
    match &route.action {
        Some(Action::Route(action)) => match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => name.clone(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}
