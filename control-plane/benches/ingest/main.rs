//! Measures the store: `cargo xtask bench ingest`.
//!
//! `ingest` writes samples by the telemetry writer, and the same rows by `psql \copy … (format binary)`, in turn, into the
//! same table. `charts` fills the tables with two weeks of minutes of a thousand backends and reads charts of them.

mod charts;
mod figures;
mod ingest;
mod recorded;
mod report;
mod server;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use self::server::Server;

/// The allocator of `clairvoy`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures how telemetry gets into Postgres, what it takes there, and how charts come out.
#[derive(Debug, Parser)]
struct Args {
    /// A tenth of everything, once: to see that all is well, not to compare
    #[arg(long)]
    quick: bool,
    /// Write the tables to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only these scenarios
    #[arg(long, value_enum, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Rows that are written
    #[arg(long, default_value_t = 2_000_000)]
    rows: u64,
    /// Repetitions of the writing; the median is told, with least and greatest
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Backends
    #[arg(long, default_value_t = 1_000)]
    backends: u32,
    /// Days of minutes that the charts are read from
    #[arg(long, default_value_t = 14)]
    days: u32,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Scenario {
    /// Samples into the database, beside psql
    Ingest,
    /// Charts from two weeks of minutes
    Charts,
}

impl Args {
    fn has(&self, scenario: Scenario) -> bool {
        self.scenario.is_empty() || self.scenario.contains(&scenario)
    }
}

fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        args.rows /= 10;
        args.runs = 1;
        args.backends = (args.backends / 10).max(1);
        args.days = args.days.min(2);
    }
    let machine = figures::machine();
    let runtime = tokio::runtime::Runtime::new()?;
    let measured = runtime.block_on(async {
        let ingested = match args.has(Scenario::Ingest) {
            true => Some(ingest::run(&args, &Server::start().await?).await?),
            false => None,
        };
        let charted = match args.has(Scenario::Charts) {
            true => Some(charts::run(&args, &Server::start().await?).await?),
            false => None,
        };
        anyhow::Ok((ingested, charted))
    });
    let (ingested, charted) = measured?;
    let text = report::render(&args, &machine, ingested.as_ref(), charted.as_ref());
    println!("{text}");
    if let Some(file) = &args.write {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
