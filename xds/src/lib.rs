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
//! Served are clusters, endpoints, listeners, routes, secrets and runtime layers, over the aggregated
//! discovery service and over that of each type, incremental (delta) and as state of the world (SotW), to
//! proxies and to gRPC clients without one. [`XdsServer::routes`] has all services, the client status
//! discovery service and health among them; [`serve`] serves them with TLS, limits and an orderly end;
//! [`Intake`] takes in load reports and access logs. The crate makes no decisions: which resources there are
//! is the caller's matter.
//!
//! ```no_run
//! use clairvoy_xds::{ServerOptions, SnapshotBuilder, TransportOptions, XdsServer, serve};
//! use envoy_types::pb::envoy::config::cluster::v3::Cluster;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = XdsServer::new(ServerOptions::single_group("edge"));
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(Cluster { name: "backend".into(), ..Default::default() });
//! server.publish("edge", builder.build()?);
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:18000").await?;
//! let stop = async { drop(tokio::signal::ctrl_c().await) };
//! serve(listener, server.routes(), TransportOptions::default(), stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/minimal.rs` is a whole server, `examples/serve_dir.rs` one that serves a folder of files.

mod clients;
mod delivery;
mod encode;
mod intake;
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
pub use self::delivery::{Delivery, Receipt};
pub use self::intake::{
    AccessLogEntries, AccessLogService, AccessLogs, Intake, IntakeMetrics, IntakeOptions, IntakeReceiver,
    IntakeReceivers, InvalidIntake, LoadReport, LoadReporting, LoadReportingService, Overflow, ReportingNode,
};
pub use self::metrics::Metrics;
pub use self::resource_type::ResourceType;
pub use self::server::{AdsService, DiscoveryService, NodeGroup, ServerOptions, VisibleGroups, XdsServer};
pub use self::snapshot::{Fault, InvalidSnapshot, Snapshot, SnapshotBuilder};
pub use self::transport::{
    Bounds, Connection, Doors, Entered, Full, Order, Peer, PemSource, RateLimit, ServeError, Tls, TlsError,
    TlsOptions, TransportMetrics, TransportOptions, serve,
};
pub use self::version::Version;
