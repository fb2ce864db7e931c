//! A client of the state-of-the-world variant: a proxy, which wants all clusters and listeners, or one that asks for
//! everything by name and follows the names from its listeners on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use envoy_types::pb::envoy::config::cluster::v3::Cluster as ClusterConfig;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment as Assignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use prost::Message;

use super::fake_client::names_in;
use crate::resource_type::ResourceType::{
    Cluster, ClusterLoadAssignment, Listener as Lds, RouteConfiguration as Rds,
};
use crate::resource_type::{PerType, ResourceType};
use crate::snapshot::Snapshot;

/// Contents by name.
pub(super) type Contents = BTreeMap<String, Vec<u8>>;

/// The contents of a type in a snapshot.
pub(super) fn contents(snapshot: &Snapshot, t: ResourceType) -> Contents {
    let resources = snapshot.table(t).iter();
    resources.map(|r| (r.name.to_string(), Any::decode(r.entry.any()).unwrap().value)).collect()
}

#[derive(Debug, Default)]
pub(super) struct FakeSotw {
    by_name: bool,
    /// Whether it is checked that nothing in use goes, and that nothing comes twice: not where limits of time
    /// run out, or after a reconnect.
    pub(super) strict: bool,
    pub(super) held: PerType<Contents>,
    wanted: PerType<BTreeSet<String>>,
    versions: PerType<String>,
    nonces: PerType<String>,
    /// Names that may be sent again although they did not change, and how often: once for each reason.
    may_repeat: PerType<BTreeMap<String, u32>>,
    /// Names that were gone in between: the server forgets them at once, and sends them anew if they are back before
    /// their cluster went.
    flapping: PerType<BTreeSet<String>>,
    /// Contents that the client refuses.
    pub(super) poison: BTreeSet<Vec<u8>>,
    /// Everything that was published, in order.
    published: Vec<PerType<Contents>>,
    /// The first state that can have been what the client saw last, by name.
    seen: PerType<BTreeMap<String, usize>>,
    pub(super) to_server: VecDeque<DiscoveryRequest>,
    pub(super) to_client: VecDeque<DiscoveryResponse>,
}

impl FakeSotw {
    pub(super) fn proxy() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// A client that asks for these listeners, and for nothing that it does not need.
    pub(super) fn by_name(listeners: &[&str]) -> Self {
        let mut client = Self { by_name: true, ..Self::proxy() };
        client.wanted[Lds] = listeners.iter().map(|name| (*name).to_owned()).collect();
        client
    }

    pub(super) fn note_published(&mut self, snapshot: &Snapshot) {
        let state = PerType::from_fn(|t| contents(snapshot, t));
        for t in [ClusterLoadAssignment, Rds] {
            let known = self.published.iter().flat_map(|earlier| earlier[t].keys());
            let gone = known.filter(|name| !state[t].contains_key(*name)).cloned();
            self.flapping[t].extend(gone.collect::<Vec<_>>());
        }
        self.published.push(state);
    }

    fn is_wildcard(&self, t: ResourceType) -> bool {
        !self.by_name && t.empty_means_wildcard()
    }

    /// Opens a stream, with the versions of an earlier one.
    pub(super) fn connect(&mut self) {
        self.to_server.clear();
        self.to_client.clear();
        self.nonces = PerType::default();
        for t in ResourceType::ALL {
            if self.is_wildcard(t) || !self.wanted[t].is_empty() {
                self.to_server.push_back(self.request(t));
            }
        }
    }

    fn request(&self, t: ResourceType) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: t.type_url().into(),
            version_info: self.versions[t].clone(),
            response_nonce: self.nonces[t].clone(),
            resource_names: self.wanted[t].iter().cloned().collect(),
            ..Default::default()
        }
    }

    /// Applies the next response, if one has come.
    pub(super) fn receive(&mut self) {
        let Some(response) = self.to_client.pop_front() else { return };
        let t = ResourceType::from_type_url(&response.type_url).unwrap();
        assert!(!response.nonce.is_empty() && !response.version_info.is_empty());
        let listed = response.resources.len();
        let resources: Contents =
            response.resources.into_iter().map(|any| (name_of(t, &any.value), any.value)).collect();
        assert_eq!(resources.len(), listed, "a name came twice in one response");
        self.nonces[t] = response.nonce;
        if resources.values().any(|content| self.poison.contains(content)) {
            let error_detail = Some(Status { code: 13, message: "poison".into(), ..Default::default() });
            self.to_server.push_back(DiscoveryRequest { error_detail, ..self.request(t) });
            return;
        }
        self.versions[t] = response.version_info;
        self.check_order(t, &resources);
        let wanted = |name: &String| self.is_wildcard(t) || self.wanted[t].contains(name);
        let resources: Contents = resources.into_iter().filter(|(name, _)| wanted(name)).collect();
        if t.empty_means_wildcard() {
            self.replace(t, resources)
        } else {
            self.update(t, resources)
        }
        self.follow();
        self.to_server.push_back(self.request(t));
    }

    /// What a client saw last was not newer than what it sees now.
    fn check_order(&mut self, t: ResourceType, resources: &Contents) {
        for (name, content) in resources {
            if t == ClusterLoadAssignment && Assignment::decode(&**content).unwrap().endpoints.is_empty() {
                // What a client is told that warms a cluster which is not there.
                continue;
            }
            let first = self.seen[t].get(name).copied().unwrap_or_default();
            let states = self.published.iter().enumerate().skip(first);
            let mut with_it = states.filter(|(_, state)| state[t].get(name) == Some(content));
            let Some((at, _)) = with_it.next() else { panic!("{t} {name} is older than what came before") };
            self.seen[t].insert(name.clone(), at);
        }
    }

    /// Takes a full set: what is missing is gone.
    fn replace(&mut self, t: ResourceType, resources: Contents) {
        let dependent = if t == Cluster { ClusterLoadAssignment } else { Rds };
        for (name, content) in &resources {
            if self.held[t].get(name) != Some(content) {
                self.let_repeat(dependent, names_in(t, name, content));
            }
        }
        let gone: Vec<String> =
            self.held[t].keys().filter(|name| !resources.contains_key(*name)).cloned().collect();
        self.held[t] = resources;
        if t == Cluster && self.strict && self.poison.is_empty() {
            let in_use = self.clusters_in_use();
            assert!(gone.iter().all(|name| !in_use.contains(name)), "{gone:?} of {in_use:?} in use are gone");
        }
    }

    fn let_repeat(&mut self, t: ResourceType, names: Vec<String>) {
        for name in names {
            *self.may_repeat[t].entry(name).or_default() += 1;
        }
    }

    /// Takes one reason off.
    fn repeats(&mut self, t: ResourceType, name: &str) -> bool {
        let reasons = self.may_repeat[t].get_mut(name).filter(|reasons| **reasons > 0);
        reasons.map(|reasons| *reasons -= 1).is_some()
    }

    fn update(&mut self, t: ResourceType, resources: Contents) {
        for (name, content) in resources {
            let may_repeat = self.repeats(t, &name) || self.flapping[t].contains(&name);
            let is_checked = self.strict && self.poison.is_empty() && !may_repeat;
            assert!(
                !is_checked || self.held[t].get(&name) != Some(&content),
                "{t} {name} came again unchanged"
            );
            self.held[t].insert(name, content);
        }
        if t == Rds && self.strict && !self.by_name && self.poison.is_empty() {
            for cluster in self.clusters_in_use() {
                assert!(self.held[Cluster].contains_key(&cluster), "{cluster} is not there");
                assert!(
                    self.held[ClusterLoadAssignment].contains_key(&cluster),
                    "{cluster} has no endpoints"
                );
            }
        }
    }

    /// What the routes name that the listeners name.
    fn clusters_in_use(&self) -> BTreeSet<String> {
        let routes = self.named_by(Lds);
        let held = routes.iter().filter_map(|name| self.held[Rds].get_key_value(name));
        held.flat_map(|(name, content)| names_in(Rds, name, content)).collect()
    }

    fn named_by(&self, t: ResourceType) -> BTreeSet<String> {
        self.held[t].iter().flat_map(|(name, content)| names_in(t, name, content)).collect()
    }

    /// Asks for what is named by now, and for nothing else.
    fn follow(&mut self) {
        let routes = self.named_by(Lds);
        self.want(Rds, routes);
        if self.by_name {
            let clusters = self.clusters_in_use();
            self.want(Cluster, clusters);
        }
        let assignments = self.named_by(Cluster);
        self.want(ClusterLoadAssignment, assignments);
    }

    fn want(&mut self, t: ResourceType, names: BTreeSet<String>) {
        if self.wanted[t] == names {
            return;
        }
        self.held[t].retain(|name, _| names.contains(name));
        let new: Vec<String> = names.difference(&self.wanted[t]).cloned().collect();
        self.let_repeat(t, new);
        self.wanted[t] = names;
        self.to_server.push_back(self.request(t));
    }

    /// Everything that a client of this kind is to have of a snapshot.
    pub(super) fn complete(&self, snapshot: &Snapshot) -> PerType<Contents> {
        let all = PerType::from_fn(|t| contents(snapshot, t));
        let pick = |t: ResourceType, names: &BTreeSet<String>| -> Contents {
            all[t]
                .iter()
                .filter(|(name, _)| names.contains(*name))
                .map(|(n, c)| (n.clone(), c.clone()))
                .collect()
        };
        let named = |t: ResourceType, of: &Contents| -> BTreeSet<String> {
            of.iter().flat_map(|(name, content)| names_in(t, name, content)).collect()
        };
        let mut complete = PerType::<Contents>::default();
        complete[Lds] = if self.by_name { pick(Lds, &self.wanted[Lds]) } else { all[Lds].clone() };
        complete[Rds] = pick(Rds, &named(Lds, &complete[Lds]));
        complete[Cluster] =
            if self.by_name { pick(Cluster, &named(Rds, &complete[Rds])) } else { all[Cluster].clone() };
        complete[ClusterLoadAssignment] = pick(ClusterLoadAssignment, &named(Cluster, &complete[Cluster]));
        complete
    }
}

fn name_of(t: ResourceType, value: &[u8]) -> String {
    match t {
        Cluster => ClusterConfig::decode(value).unwrap().name,
        ClusterLoadAssignment => Assignment::decode(value).unwrap().cluster_name,
        Lds => Listener::decode(value).unwrap().name,
        Rds => RouteConfiguration::decode(value).unwrap().name,
        _ => panic!("{t} was not asked for"),
    }
}
