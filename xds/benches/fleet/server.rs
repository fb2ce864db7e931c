//! The server under test: the library as a user would run it.

use std::future;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::runtime;

use clairvoy_xds::{ServerOptions, Snapshot, SnapshotBuilder, TransportOptions, XdsServer};

use crate::process::{Usage, monotonic_ns};
use crate::protocol::{ServerCommand, ServerReply, commands, reply};
use crate::resources;

const GROUP: &str = "fleet";
const MAX_STREAMS: usize = 100_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Clusters in the snapshot
    #[arg(long)]
    clusters: usize,
    /// Endpoints of each cluster
    #[arg(long)]
    endpoints: usize,
    /// Threads that serve
    #[arg(long)]
    workers: usize,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(args.workers).enable_all().build()?;
    let mut options = ServerOptions::single_group(GROUP);
    options.max_streams = MAX_STREAMS;
    let server = XdsServer::new(options);
    let mut fleet = Fleet { generations: vec![1; args.clusters], endpoints: args.endpoints };
    server.publish(GROUP, fleet.snapshot(None)?);

    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    reply(&ServerReply::Ready { address: listener.local_addr()? })?;
    let serving = runtime.spawn(serve(listener, server.clone()));
    for command in commands() {
        if serving.is_finished() {
            reply(&ServerReply::Failed { reason: "the server stopped serving".into() })?;
            break;
        }
        reply(&obey(command?, &server, &mut fleet)?)?;
    }
    runtime.shutdown_background();
    Ok(())
}

async fn serve(listener: TcpListener, server: XdsServer) -> Result<()> {
    let mut options = TransportOptions::default();
    options.max_connections = MAX_STREAMS;
    clairvoy_xds::serve(listener, server.routes(), options, future::pending()).await.context("serving failed")
}

fn obey(command: ServerCommand, server: &XdsServer, fleet: &mut Fleet) -> Result<ServerReply> {
    let at_ns = monotonic_ns();
    match command {
        ServerCommand::PublishOne { generation, cluster } => {
            *fleet.generations.get_mut(cluster).context("no such cluster")? = generation;
        }
        ServerCommand::PublishAll { generation } => fleet.generations.fill(generation),
        ServerCommand::Usage => return Ok(ServerReply::Usage(Usage::read()?)),
    }
    server.publish(GROUP, fleet.snapshot(server.newest(GROUP).as_ref())?);
    Ok(ServerReply::Published { at_ns })
}

/// What is to be published.
struct Fleet {
    generations: Vec<u32>,
    endpoints: usize,
}

impl Fleet {
    fn snapshot(&self, base: Option<&Snapshot>) -> Result<Snapshot> {
        let mut builder = SnapshotBuilder::new();
        if let Some(base) = base {
            builder.based_on(base);
        }
        for (cluster, &generation) in self.generations.iter().enumerate() {
            builder.cluster(resources::cluster(cluster));
            builder.assignment(resources::assignment(cluster, self.endpoints, generation));
        }
        Ok(builder.build()?)
    }
}
