//! Measures scraping on a fleet of simulated backends: `cargo xtask bench scrape`.
//!
//! One program in three roles, each a process of its own, so that CPU and memory are told apart: `server` shows the
//! pages of all backends, `scraper` is the scraper as Clairvoy runs it, and without a role the program starts both for
//! each fleet and writes the table. Every backend has an address of its own in 127.0.0.0/8, so that connections are
//! pooled as those to real ones are.

mod orchestrator;
mod page;
mod process;
mod scraper;
mod server;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures scraping on a fleet of simulated backends.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    plan: orchestrator::Args,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum Role {
    /// Show the pages; ends with its standard input
    Server(server::Args),
    /// Scrape them
    Scraper(scraper::Args),
}

fn main() -> Result<()> {
    process::raise_open_files_limit()?;
    let cli = Cli::parse();
    match &cli.role {
        None => orchestrator::run(&cli.plan),
        Some(Role::Server(args)) => server::run(args),
        Some(Role::Scraper(args)) => scraper::run(args),
    }
}
