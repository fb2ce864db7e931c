//! Runs every scenario with a server and a load client as processes of their own, and tells what came out.

mod child;
mod figures;
mod report;
mod scenarios;
mod session;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use self::figures::{Fleet, Measured, Row};
use crate::process;
use crate::protocol::Variant;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// One run of 1,000 streams and a few seconds: to see that all is well, not to compare
    #[arg(long)]
    quick: bool,
    /// Write the tables to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Delta streams of the `fleet` scenario, one row for each number
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1000, 2000, 5000])]
    streams: Vec<usize>,
    /// State-of-the-world streams of the `fleet` scenario, one row for each number
    #[arg(long, value_delimiter = ',', default_values_t = [2000])]
    sotw_streams: Vec<usize>,
    /// Streams on one connection, in the `fleet` scenario
    #[arg(long, default_value_t = 1)]
    per_connection: usize,
    /// Clusters
    #[arg(long, default_value_t = 50)]
    clusters: usize,
    /// Endpoints of each cluster
    #[arg(long, default_value_t = 20)]
    endpoints: usize,
    /// Changes of one cluster
    #[arg(long, default_value_t = 20)]
    changes: usize,
    /// Seconds of churn
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Repetitions of every scenario; the median is told, with least and greatest
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Threads of the server
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Threads of the load client
    #[arg(long, default_value_t = 1)]
    client_threads: usize,
    /// Bytes of extensions that each node lists in its first request; a real Envoy lists about 50,000
    #[arg(long, default_value_t = 0)]
    node_bytes: usize,
    /// Another server to measure in turn with ours in the `fleet` scenario with delta: a program that takes
    /// the arguments and orders of our role `server` (`--help` of that role, and `protocol.rs`)
    #[arg(long, value_name = "PROGRAM")]
    peer: Option<PathBuf>,
    /// What the page calls that server
    #[arg(long, value_name = "NAME", default_value = "peer")]
    peer_name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Start, change of one cluster, and churn of all weights
    Fleet,
    /// 5,000 streams come, go, and come back
    Storm,
    /// Half of 2,000 clients do not read
    Stalled,
    /// 10,000 streams, 50 on a connection
    Big,
}

/// The streams of a run.
#[derive(Clone, Copy, Debug)]
struct Load {
    variant: Variant,
    streams: usize,
    per_connection: usize,
    /// Whether every other connection can be stalled.
    stallable: bool,
    server: Server,
}

/// Which server a run is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Ours,
    Peer,
}

impl Args {
    fn shortened(&self) -> Self {
        Self {
            streams: vec![1000],
            sotw_streams: vec![1000],
            changes: self.changes.min(5),
            seconds: self.seconds.min(3),
            runs: 1,
            ..self.clone()
        }
    }

    fn has(&self, scenario: Scenario) -> bool {
        // The others are of a size that is not quick.
        if self.scenario.is_empty() {
            !self.quick || scenario == Scenario::Fleet
        } else {
            self.scenario.contains(&scenario)
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let args = if args.quick { args.shortened() } else { args.clone() };
    if args.clusters == 0 || args.endpoints == 0 || args.runs == 0 || args.per_connection == 0 {
        bail!("clusters, endpoints, runs and streams on a connection must be 1 or more");
    }
    // Taken first: later it is our own.
    let machine = process::machine();
    let measured = measure(&args);
    let report = report::render(&args, &machine, &measured);
    println!("{report}");
    if let Some(path) = &args.write {
        fs::write(path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let failures = measured.failures();
    if !failures.is_empty() {
        bail!("not everything worked:\n{}", failures.join("\n"));
    }
    Ok(())
}

fn measure(args: &Args) -> Measured {
    let mut measured = Measured::default();
    let load = |variant, streams, per_connection| {
        let (stallable, server) = (false, Server::Ours);
        Load { variant, streams, per_connection, stallable, server }
    };
    if args.has(Scenario::Fleet) {
        let delta = args.streams.iter().map(|&streams| (Variant::Delta, streams));
        let sotw = args.sotw_streams.iter().map(|&streams| (Variant::Sotw, streams));
        for (variant, streams) in delta.chain(sotw) {
            let load = load(variant, streams, args.per_connection);
            let mut rows = vec![Row::new("fleet", load)];
            if args.peer.is_some() && variant == Variant::Delta {
                rows.push(Row::new("fleet", Load { server: Server::Peer, ..load }));
            }
            // In turn, so that what the machine does beside it falls on both.
            for number in 1..=args.runs {
                rows.iter_mut().for_each(|row| run_once(row, args, number, scenarios::fleet));
            }
            let mut rows = rows.into_iter();
            measured.fleets.extend(rows.next().map(|ours| Fleet { ours, peer: rows.next() }));
        }
    }
    if args.has(Scenario::Storm) {
        let load = load(Variant::Delta, 5000, 1);
        measured.storm = Some(repeat("storm", args, load, scenarios::storm));
    }
    if args.has(Scenario::Stalled) {
        let load = Load { stallable: true, ..load(Variant::Delta, 2000, 1) };
        measured.stalled = Some(repeat("stalled", args, load, scenarios::stalled));
    }
    if args.has(Scenario::Big) {
        let load = load(Variant::Delta, 10_000, 50);
        measured.big = Some(repeat("big", args, load, scenarios::fleet));
    }
    measured
}

fn repeat<R>(name: &'static str, args: &Args, load: Load, once: impl Fn(&Args, Load) -> Result<R>) -> Row<R> {
    let mut row = Row::new(name, load);
    (1..=args.runs).for_each(|number| run_once(&mut row, args, number, &once));
    row
}

/// Runs a scenario once more, unless it has failed; the first reason is kept.
fn run_once<R>(row: &mut Row<R>, args: &Args, number: usize, once: impl Fn(&Args, Load) -> Result<R>) {
    if row.failure.is_some() {
        return;
    }
    eprintln!("{}, run {number} of {}", row.title(), args.runs);
    match once(args, row.load) {
        Ok(run) => row.runs.push(run),
        Err(error) => row.failure = Some(format!("{error:#}")),
    }
}
