//! A service that gRPC clients reach by name, and a client process.

use clairvoy_xds::{Snapshot, SnapshotBuilder};
use envoy_types::pb::envoy::config::listener::v3::{ApiListener, Listener};
use envoy_types::util::pack_any;

use crate::peer::{Peer, Ports};
use crate::resources;
use crate::serving::Serving;

/// The listener is named by what follows the scheme.
pub(crate) const TARGET: &str = "xds:///front";

/// A cluster with its zones: name, weight and ports.
pub(crate) type Endpoints<'a> = (&'a str, &'a [(&'a str, u32, &'a [u16])]);

/// Clusters, and calls to [`TARGET`] that go to some of them by weight.
pub(crate) fn service(clusters: &[Endpoints<'_>], routed: &[(&str, u32)]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.allow_empty_assignments();
    for (name, zones) in clusters {
        builder.cluster(resources::cluster(name, &resources::ads()));
        builder.assignment(resources::assignment(name, zones));
    }
    add_routes(&mut builder, routed);
    builder.build().unwrap()
}

pub(crate) fn add_routes(builder: &mut SnapshotBuilder, routed: &[(&str, u32)]) {
    let manager = resources::manager(&resources::ads());
    builder.listener(Listener {
        name: resources::LISTENER.into(),
        api_listener: Some(ApiListener { api_listener: Some(pack_any(manager)) }),
        ..Default::default()
    });
    builder.route_configuration(resources::routes(routed));
}

/// A server without resources, and a client of it.
pub(crate) struct Site {
    pub(crate) serving: Serving,
    pub(crate) peer: Peer,
}

impl Site {
    /// Starts both, and servers to be called that answer with their names.
    pub(crate) async fn start(names: &[&str]) -> (Self, Ports) {
        let serving = Serving::start(SnapshotBuilder::new().build().unwrap()).await;
        let mut peer = Peer::start(serving.address);
        let ports = peer.serve(names).await;
        (Self { serving, peer }, ports)
    }
}
