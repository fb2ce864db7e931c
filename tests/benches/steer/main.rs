//! Measures the way of telemetry to Envoy: `cargo xtask bench steer`.
//!
//! A thousand backends in this process, a Clairvoy with its own Postgres, and a real Envoy. Now and then a random backend
//! becomes slow. What counts begins when a metrics page was answered whose whole second was slow, and ends with Envoy's ACK of
//! the first weights in which the backend has a group of its own, as `clairvoy explain` tells it.

#[path = "../balance/machine.rs"]
mod machine;
#[path = "../balance/programs.rs"]
mod programs;

mod backends;
mod measure;
mod report;
mod site;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use sqlx::Connection as _;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use self::backends::Backend;
use self::programs::{Paths, Programs};
use self::report::Report;
use self::site::Site;

/// Measures how long it takes from the scrape that shows a change until Envoy has acknowledged other weights.
#[derive(Debug, Parser)]
struct Args {
    /// Fewer changes: two minutes
    #[arg(long)]
    quick: bool,
    /// Write the tables to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Backends
    #[arg(long, default_value_t = 1000)]
    backends: usize,
    /// Pools that they are in
    #[arg(long, default_value_t = 10)]
    pools: usize,
    /// Changes that are measured [default: 240, quick 40]
    #[arg(long)]
    changes: Option<usize>,
    /// Seconds before the first one, in which Clairvoy learns what is usual [default: 90, quick 45]
    #[arg(long, value_name = "SECONDS")]
    warm_up: Option<u64>,
    /// Which backends change, and when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    paths: Paths,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let programs = args.paths.programs()?;
    raise_open_files_limit()?;
    // One thread for all backends, beside the one that runs this.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let report = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Dropping the run ends its processes and removes their folder.
        tokio::select! {
            report = run(&args, &programs) => report,
            _ = ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })?;
    let text = report.render();
    println!("{text}");
    if let Some(file) = &args.write {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn run(args: &Args, programs: &Programs) -> Result<Report> {
    ensure!(args.pools > 0 && args.pools <= args.backends, "there have to be as many backends as pools");
    let (changes, warm_up) = if args.quick { (40, 45) } else { (240, 90) };
    let changes = args.changes.unwrap_or(changes);
    let warm_up = Duration::from_secs(args.warm_up.unwrap_or(warm_up));
    let mut backends = Vec::with_capacity(args.backends);
    for number in 0..args.backends {
        backends.push(Backend::start(number).await?);
    }
    let mut site = Site::start(programs, &backends, args.pools).await?;
    tokio::time::sleep(warm_up).await;
    let (busy_before, all_before) = machine::cpu_times()?;
    let changed = measure::change(&mut site, &backends, changes, args.seed).await?;
    let (busy, all) = machine::cpu_times()?;
    let mut database = site.database().await?;
    let measured = measure::read(&mut database, &changed).await?;
    database.close().await?;
    site.stop().await;
    Ok(Report {
        backends: args.backends,
        pools: args.pools,
        measured,
        busy: (busy - busy_before) / (all - all_before).max(1.0),
    })
}

/// A connection is a file, as is a listener, and the usual limit is 1,024.
fn raise_open_files_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("cannot raise the limit of open files")
}
