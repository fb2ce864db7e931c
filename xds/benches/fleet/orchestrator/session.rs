//! A server and its load, and what was published so far.

use std::env;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::child::Child;
use super::{Args, Load, Server};
use crate::process::Usage;
use crate::protocol::{
    Checked, ClientCommand, ClientReply, Received, ServerCommand, ServerReply, Summary, Watched,
};

/// Acknowledgements are on their way for a moment after the last client has what was published; what they
/// cost belongs to it.
const REST: Duration = Duration::from_millis(100);

/// A server process and a load process.
#[derive(Debug)]
pub(super) struct Session {
    server: Child,
    client: Child,
    generation: u32,
    newest: Vec<u32>,
}

/// When every stream had what was waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached {
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    /// Of the client.
    pub(super) usage: Usage,
}

impl Session {
    pub(super) fn start(args: &Args, load: Load) -> Result<Self> {
        let clusters = ("--clusters", args.clusters.to_string());
        let endpoints = ("--endpoints", args.endpoints.to_string());
        let workers = ("--workers", args.workers.to_string());
        let program = match &args.peer {
            Some(peer) if load.server == Server::Peer => peer.clone(),
            _ => env::current_exe()?,
        };
        let mut server = Child::start(&program, "server", &[clusters.clone(), endpoints, workers], &[])?;
        let address = match server.answer()? {
            ServerReply::Ready { address } => address,
            other => bail!("the server did not start: {other:?}"),
        };
        let client_args = [
            ("--target", address.to_string()),
            ("--variant", load.variant.name().to_owned()),
            ("--streams", load.streams.to_string()),
            ("--per-connection", load.per_connection.to_string()),
            clusters,
            ("--node-bytes", args.node_bytes.to_string()),
            ("--threads", args.client_threads.to_string()),
        ];
        let flags: &[&str] = if load.stallable { &["--stallable"] } else { &[] };
        let client = Child::start(&env::current_exe()?, "client", &client_args, flags)?;
        Ok(Self { server, client, generation: 1, newest: vec![1; args.clusters] })
    }

    /// Opens every stream and waits until each has everything.
    pub(super) fn open(&mut self) -> Result<Reached> {
        self.reach(&ClientCommand::Open)
    }

    /// Waits until every stream that is not stalled has what was published last.
    pub(super) fn wait(&mut self) -> Result<Reached> {
        self.reach(&ClientCommand::Await { generation: self.generation })
    }

    fn reach(&mut self, order: &ClientCommand) -> Result<Reached> {
        let (missing, reached) = match self.client.ask(order)? {
            ClientReply::Reached { missing, first_ns, last_ns, usage } => {
                (missing, Reached { first_ns, last_ns, usage })
            }
            other => bail!("unexpected answer of the client: {other:?}"),
        };
        if missing > 0 {
            let checked = self.checked()?;
            bail!(
                "{missing} streams lack the state; {} ended: {}",
                checked.failed,
                checked.reason.as_deref().unwrap_or("none")
            );
        }
        Ok(reached)
    }

    /// Publishes a change of one cluster, or of all, and returns its generation and time.
    pub(super) fn publish(&mut self, what: Watched) -> Result<(u32, u64)> {
        self.generation += 1;
        let generation = self.generation;
        let order = match what {
            Watched::All => {
                self.newest.fill(generation);
                ServerCommand::PublishAll { generation }
            }
            Watched::One(cluster) => {
                self.newest[cluster] = generation;
                ServerCommand::PublishOne { generation, cluster }
            }
        };
        match self.server.ask(&order)? {
            ServerReply::Published { at_ns } => Ok((generation, at_ns)),
            other => bail!("unexpected answer of the server: {other:?}"),
        }
    }

    /// What the server has used, after a moment of rest.
    pub(super) fn settled(&mut self) -> Result<Usage> {
        thread::sleep(REST);
        self.server_usage()
    }

    pub(super) fn server_usage(&mut self) -> Result<Usage> {
        match self.server.ask(&ServerCommand::Usage)? {
            ServerReply::Usage(usage) => Ok(usage),
            other => bail!("unexpected answer of the server: {other:?}"),
        }
    }

    pub(super) fn client_usage(&mut self) -> Result<(Usage, Received)> {
        match self.client.ask(&ClientCommand::Usage)? {
            ClientReply::Usage { usage, received } => Ok((usage, received)),
            other => bail!("unexpected answer of the client: {other:?}"),
        }
    }

    /// Takes the times of these clusters from now on; returns what the client has used so far.
    pub(super) fn watch(&mut self, watched: Watched) -> Result<Usage> {
        self.done(&ClientCommand::Watch(watched))
    }

    pub(super) fn collect(&mut self, published: Vec<(u32, u64)>) -> Result<()> {
        self.done(&ClientCommand::Collect { published }).map(drop)
    }

    /// The delays collected since the last summary; there must be one for each of the given publishes and
    /// streams.
    pub(super) fn summary(&mut self, expected: usize) -> Result<Summary> {
        match self.client.ask(&ClientCommand::Summary)? {
            ClientReply::Summary(summary) if summary.samples == expected => Ok(summary),
            ClientReply::Summary(summary) => {
                bail!("{} delays were taken instead of {expected}", summary.samples)
            }
            other => bail!("unexpected answer of the client: {other:?}"),
        }
    }

    pub(super) fn stall(&mut self, stall: bool) -> Result<()> {
        self.done(&ClientCommand::Stall(stall)).map(drop)
    }

    pub(super) fn close(&mut self) -> Result<()> {
        self.done(&ClientCommand::Close).map(drop)
    }

    fn done(&mut self, order: &ClientCommand) -> Result<Usage> {
        match self.client.ask(order)? {
            ClientReply::Done(usage) => Ok(usage),
            other => bail!("unexpected answer of the client: {other:?}"),
        }
    }

    fn checked(&mut self) -> Result<Checked> {
        match self.client.ask(&ClientCommand::Check { newest: self.newest.clone() })? {
            ClientReply::Checked(checked) => Ok(checked),
            other => bail!("unexpected answer of the client: {other:?}"),
        }
    }

    /// An error unless every stream has the newest state of every cluster and none ever went back or ended.
    pub(super) fn check(&mut self) -> Result<()> {
        let Checked { behind, reordered, failed, reason } = self.checked()?;
        if behind + failed > 0 || reordered > 0 {
            let reason = reason.as_deref().unwrap_or("none");
            bail!("{behind} streams lack the newest state, {reordered} steps back, {failed} ended: {reason}");
        }
        Ok(())
    }
}
