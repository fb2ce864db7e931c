//! States that a publisher may publish, one after another.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::fixtures;
use crate::snapshot::{Snapshot, SnapshotBuilder};

/// So many cases, and more with `CLAIRVOY_LONG=1`.
pub(super) fn cases(short: u32, long: u32) -> Config {
    let is_long = std::env::var_os("CLAIRVOY_LONG").is_some_and(|value| value == "1");
    Config { cases: if is_long { long } else { short }, ..Config::default() }
}

/// Clusters with the versions of their settings and endpoints; routes; listeners with their version.
#[derive(Clone, Debug)]
pub(super) struct World {
    clusters: BTreeMap<String, (u64, u16)>,
    routes: BTreeMap<String, BTreeSet<String>>,
    listeners: BTreeMap<String, (u16, String)>,
}

impl World {
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut builder = SnapshotBuilder::new();
        builder.allow_empty_assignments();
        for (name, (settings, endpoints)) in &self.clusters {
            builder.cluster(fixtures::cluster(name, *settings));
            builder.assignment(fixtures::assignment(name, *endpoints));
        }
        for (name, clusters) in &self.routes {
            builder.route_configuration(fixtures::routes(name, clusters.iter().map(String::as_str)));
        }
        for (name, (port, routes)) in &self.listeners {
            let mut listener = fixtures::listener(name, *port, routes);
            listener.stat_prefix.clone_from(routes);
            builder.listener(listener);
        }
        builder.build().unwrap()
    }
}

pub(super) fn world() -> impl Strategy<Value = World> {
    let clusters = prop::collection::btree_map("cluster-[a-d]", (1..3_u64, 0..3_u16), 0..5);
    let routes = prop::collection::btree_map("routes-[a-b]", any::<u8>(), 1..3);
    let listeners = prop::collection::btree_map("listener-[a-b]", (1..3_u16, any::<bool>()), 0..3);
    (clusters, routes, listeners).prop_map(|(clusters, routes, listeners)| {
        let picked = |mask: &u8| {
            let names = clusters.keys().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
            names.map(|(_, name)| name.clone()).collect()
        };
        let routes: BTreeMap<String, BTreeSet<String>> =
            routes.iter().map(|(name, mask)| (name.clone(), picked(mask))).collect();
        let listeners = listeners.into_iter().map(|(name, (port, first))| {
            let routes = if first { routes.keys().next() } else { routes.keys().last() };
            (name, (port, routes.unwrap().clone()))
        });
        World { listeners: listeners.collect(), clusters, routes }
    })
}
