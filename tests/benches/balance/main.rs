//! Measures balancing on real Envoys: `cargo xtask bench balance`.
//!
//! Four Envoys, sixteen simulated backends of four speeds in one process, and the same requests for each policy. Each cell
//! is a scenario at a part of the fleet's measured capacity; each policy gets fresh processes and the same warm-up. The rig
//! watches itself: a cell in which requests left late or engines woke up late does not count.

mod clairvoy;
mod fleet;
mod machine;
mod modelled;
mod pictures;
mod play;
mod policies;
mod programs;
mod report;
mod run;
mod site;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use clairvoy_tests::{Cell, Lengths};

use self::policies::Policy;
use self::programs::{Paths, built_folder};
use self::run::Order;

/// Real seconds of traffic before each cell: Clairvoy learns in them, and every policy has them.
const WARM_UP_SECONDS: f64 = 75.0;
/// The shortest cell, simulated seconds.
const LEAST_SECONDS: f64 = 120.0;
/// Requests of a cell at least. A little more are planned for, as arrivals are random.
const REQUESTS: f64 = 2_100.0;
/// Draws behind an interval.
const ROUNDS: usize = 1_000;

/// The same for a quick run, which takes 20 minutes.
const QUICK: Lengths = Lengths { warm_up_seconds: 25.0, least_seconds: 80.0, requests: 700.0 };
const QUICK_POLICIES: [Policy; 4] =
    [Policy::Predictive, Policy::StaticLocality, Policy::ExactRr, Policy::FullScan];
const QUICK_SPEED: f64 = 2.0;

/// Measures ways of balancing on real Envoys.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    args: Args,
    /// Given by `cargo bench`
    #[arg(long, hide = true, global = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// All simulated servers
    #[command(hide = true)]
    Fleet(fleet::Args),
}

#[derive(Debug, clap::Args)]
struct Args {
    /// Fewer, shorter cells of fewer policies, twice as fast: 20 minutes
    #[arg(long)]
    quick: bool,
    /// Write the tables to this file
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Only cells whose names begin so, or other cells by their whole names: `slow`, `steady-code-0.70`
    #[arg(long, value_delimiter = ',', value_name = "CELL")]
    cells: Vec<String>,
    /// Only these policies
    #[arg(long, value_enum, value_delimiter = ',', value_name = "POLICY")]
    policies: Vec<Policy>,
    /// Seeds of arrivals and servers; each is measured by itself
    #[arg(long, value_delimiter = ',', default_value = "1")]
    seeds: Vec<u64>,
    /// Simulated seconds per real one, 1 to 2 [default: 1, quick 2]
    #[arg(long, value_parser = speed)]
    speed: Option<f64>,
    /// Shortest cell, simulated seconds [default: 120, quick 80]
    #[arg(long, value_name = "SECONDS")]
    least_seconds: Option<f64>,
    /// Requests of a cell, about [default: 2100, quick 700]
    #[arg(long)]
    requests: Option<f64>,
    /// Warm-up before each cell, real seconds [default: 75, quick 25]
    #[arg(long, value_name = "SECONDS")]
    warm_up: Option<f64>,
    /// Folder of results; finished cells in it are not measured again, but for those that another Clairvoy steered [default: `balance` in the target folder]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Measure finished cells again, too
    #[arg(long)]
    again: bool,
    /// Draw a picture of each cell into this folder [default with --write: docs/images/balance of the project]
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Without Envoys and without waiting: engines and Envoys in virtual time, the decisions by the program's own code. To work on
    /// the law; results are shown and not kept
    #[arg(long)]
    modelled: bool,
    /// List the cells and end
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    paths: Paths,
}

fn speed(text: &str) -> Result<f64, String> {
    // Clairvoy's own clock is not compressed, so that more would be unfair to it.
    match text.parse::<f64>() {
        Ok(speed) if (1.0..=2.0).contains(&speed) => Ok(speed),
        _ => Err("give a number from 1 to 2".to_owned()),
    }
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Role::Fleet(args)) = &cli.role {
        return fleet::run(args);
    }
    let args = &cli.args;
    let cells = args.chosen_cells()?;
    if args.list {
        cells.iter().for_each(|cell| println!("{cell}"));
        return Ok(());
    }
    let mut order = args.order(cells)?;
    if args.modelled {
        order.speed = 1.0;
        order.policies.retain(|policy| !matches!(policy, Policy::Orca | Policy::PredictiveShedding));
        let results = modelled::run(&order.cells, &order.policies, &order.seeds, order.lengths)?;
        println!("{}", report::render(&results, &order, ROUNDS));
        return Ok(());
    }
    let programs = args.paths.programs()?;
    // One thread for all requests, beside the one that runs this: the machine is the servers' and the Envoys'.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let results = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Dropping the run ends its processes and removes their folder.
        tokio::select! {
            results = run::run(&order, &programs) => results,
            _ = ctrl_c() => bail!("interrupted; finished cells are kept"),
            _ = terminate.recv() => bail!("terminated; finished cells are kept"),
        }
    })?;
    let text = report::render(&results, &order, ROUNDS);
    println!("{text}");
    let pages = args.write.is_some().then(pictures_folder).transpose()?;
    if let Some(folder) = args.pictures.as_ref().or(pages.as_ref()) {
        pictures::draw(&results, folder)?;
    }
    if let Some(file) = &args.write {
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

impl Args {
    /// The cells that the names choose, or are.
    fn chosen_cells(&self) -> Result<Vec<Cell>> {
        let usual = if self.quick { Cell::quick() } else { Cell::all() };
        if self.cells.is_empty() {
            return Ok(usual);
        }
        let mut chosen = Vec::new();
        for name in &self.cells {
            let before = chosen.len();
            chosen.extend(usual.iter().filter(|cell| cell.to_string().starts_with(name)));
            if chosen.len() == before {
                chosen.push(name.parse()?);
            }
        }
        Ok(chosen)
    }

    fn order(&self, cells: Vec<Cell>) -> Result<Order> {
        let speed = self.speed.unwrap_or(if self.quick { QUICK_SPEED } else { 1.0 });
        let full =
            Lengths { warm_up_seconds: WARM_UP_SECONDS, least_seconds: LEAST_SECONDS, requests: REQUESTS };
        let usual = if self.quick { QUICK } else { full };
        let policies = match (self.policies.as_slice(), self.quick) {
            ([], true) => QUICK_POLICIES.to_vec(),
            ([], false) => Policy::ALL.to_vec(),
            (some, _) => some.to_vec(),
        };
        let folder = self.results.clone().map_or_else(results_folder, Ok)?;
        Ok(Order {
            cells,
            policies,
            seeds: self.seeds.clone(),
            speed,
            lengths: Lengths {
                warm_up_seconds: self.warm_up.unwrap_or(usual.warm_up_seconds) * speed,
                least_seconds: self.least_seconds.unwrap_or(usual.least_seconds),
                requests: self.requests.unwrap_or(usual.requests),
            },
            folder: if self.quick { folder.join("quick") } else { folder },
            again: self.again,
        })
    }
}

fn results_folder() -> Result<PathBuf> {
    let target = built_folder()?;
    target.parent().map(|target| target.join("balance")).context("the benchmark is in no target folder")
}

/// Where the page of benchmarks finds its pictures.
fn pictures_folder() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the project has no folder")?;
    Ok(root.join("docs").join(report::PICTURES))
}
