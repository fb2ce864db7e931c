//! An xDS server for control planes written in Rust.
//!
//! A control plane builds a [`Snapshot`] of everything that a group of proxies is to have, publishes it,
//! and this crate turns it into protocol: each client is sent what it lacks, in an order in which no route
//! points at a cluster that is not there.
//!
//! ```text
//! Envoy messages ─► SnapshotBuilder ─► Snapshot ─► XdsServer::publish ─► one state machine per stream
//!                   checks, encodes    immutable   swaps a pointer       sends differences
//! ```
//!
//! Resources are encoded once, when the snapshot is built; every stream shares the bytes. Publishing never
//! waits for a client, and a client that is slow costs others nothing: a stream holds no queue, only what
//! its client is believed to hold, and works out the difference to the newest snapshot when the client is
//! ready for it. Versions are hashes of the content, so a client that comes back, to whichever server, is
//! sent only what changed.
//!
//! Served are clusters, endpoints, listeners and routes over the aggregated discovery service, in its
//! incremental (delta) form. The crate makes no decisions: which resources there are is the caller's
//! matter.
//!
//! `examples/minimal.rs` is a whole server.

mod clients;
mod encode;
mod metrics;
mod resource_type;
mod server;
mod snapshot;
mod stream;
mod transport;
mod version;

#[cfg(test)]
#[path = "../tests/support/fixtures.rs"]
mod fixtures;

pub use self::clients::{
    ClientEvent, ClientEventKind, ClientId, ClientStatus, Nack, Quarantined, Service, SyncState, TypeStatus,
};
pub use self::metrics::Metrics;
pub use self::resource_type::ResourceType;
pub use self::server::{AdsService, DiscoveryService, NodeGroup, ServerOptions, XdsServer};
pub use self::snapshot::{Fault, InvalidSnapshot, Snapshot, SnapshotBuilder};
pub use self::transport::{Connection, Peer};
pub use self::version::Version;
