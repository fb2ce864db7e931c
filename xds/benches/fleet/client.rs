//! The load: streams over real connections that behave as proxies do, and keep account of what they receive.

mod connection;
mod ledger;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::connection::Connector;
use self::ledger::Ledger;
use crate::process::{Usage, monotonic_ns};
use crate::protocol::{ClientCommand, ClientReply, Variant, Watched, commands, reply};
use crate::requests::Requests;

/// No state takes longer to arrive, or it is lost.
const DEADLINE: Duration = Duration::from_secs(60);

/// Connections that wait for their first answer at a time; more could overflow the server's backlog, and the
/// kernel then tries again only after a second.
const CONNECTING: usize = 256;

/// What is waited for is looked at this often. No figure depends on it: arrivals carry their own times.
const LOOK: Duration = Duration::from_millis(2);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the server listens
    #[arg(long)]
    target: SocketAddr,
    /// Delta or state of the world
    #[arg(long, value_enum)]
    variant: Variant,
    /// Streams to open
    #[arg(long)]
    streams: usize,
    /// Streams on one connection
    #[arg(long)]
    per_connection: usize,
    /// Clusters that the server has
    #[arg(long)]
    clusters: usize,
    /// Bytes of extensions that each node lists
    #[arg(long)]
    node_bytes: usize,
    /// Threads
    #[arg(long)]
    threads: usize,
    /// Give every other connection a small receive buffer, so that it fills soon when it is stalled
    #[arg(long)]
    stallable: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime = match args.threads {
        1 => runtime::Builder::new_current_thread().enable_all().build()?,
        threads => runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?,
    };
    let ledger = Arc::new(Ledger::new(args.streams, args.clusters));
    let stall = watch::Sender::new(false);
    let connector = Arc::new(Connector {
        target: args.target,
        variant: args.variant,
        requests: Requests::new(args.variant, args.clusters, args.node_bytes),
        ledger: ledger.clone(),
        connecting: Arc::new(Semaphore::new(CONNECTING)),
        stall: stall.subscribe(),
        stallable: args.stallable,
    });
    let mut fleet = Fleet {
        ledger,
        connector,
        stall,
        tasks: JoinSet::new(),
        streams: args.streams,
        per_connection: args.per_connection,
    };
    // The orders are read on a thread of their own: the runtime must turn while there are none.
    let (sender, mut orders) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || commands().try_for_each(|command| sender.blocking_send(command)));
    runtime.block_on(async {
        while let Some(command) = orders.recv().await {
            reply(&fleet.obey(command?).await?)?;
        }
        Ok(())
    })
}

struct Fleet {
    ledger: Arc<Ledger>,
    connector: Arc<Connector>,
    stall: watch::Sender<bool>,
    tasks: JoinSet<()>,
    streams: usize,
    per_connection: usize,
}

impl Fleet {
    async fn obey(&mut self, command: ClientCommand) -> Result<ClientReply> {
        match command {
            ClientCommand::Open => return self.open().await,
            ClientCommand::Watch(watched) => self.ledger.watch(watched),
            ClientCommand::Await { generation } => return self.reach(generation, monotonic_ns()).await,
            ClientCommand::Collect { published } => self.ledger.collect(&published),
            ClientCommand::Summary => {
                let summary = self.ledger.summary().context("nothing was collected")?;
                return Ok(ClientReply::Summary(summary));
            }
            ClientCommand::Stall(stall) => {
                self.ledger.set_stalled(|stream| stall && self.is_stallable(stream));
                self.stall.send_replace(stall);
            }
            ClientCommand::Check { newest } => return Ok(ClientReply::Checked(self.ledger.check(&newest))),
            ClientCommand::Usage => {
                return Ok(ClientReply::Usage { usage: Usage::read()?, received: self.ledger.received() });
            }
            ClientCommand::Close => self.close().await,
        }
        Ok(ClientReply::Done(Usage::read()?))
    }

    fn is_stallable(&self, stream: usize) -> bool {
        connection::is_stallable(stream / self.per_connection)
    }

    async fn open(&mut self) -> Result<ClientReply> {
        self.ledger.clear();
        self.ledger.watch(Watched::All);
        let first_ns = monotonic_ns();
        for (number, first) in (0..self.streams).step_by(self.per_connection).enumerate() {
            let streams = first..self.streams.min(first + self.per_connection);
            self.tasks.spawn(self.connector.clone().run(number, streams));
        }
        self.reach(1, first_ns).await
    }

    async fn reach(&self, generation: u32, first_ns: u64) -> Result<ClientReply> {
        let deadline = Instant::now() + DEADLINE;
        let mut arrived = 0;
        while !self.ledger.have_reached(generation, &mut arrived) {
            if Instant::now() > deadline || self.ledger.has_failed() {
                break;
            }
            sleep(LOOK).await;
        }
        let (missing, last_ns) = self.ledger.missing(generation);
        Ok(ClientReply::Reached { missing, first_ns, last_ns, usage: Usage::read()? })
    }

    async fn close(&mut self) {
        self.tasks.shutdown().await;
    }
}
