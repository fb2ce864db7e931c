//! Measures the server with a fleet of real connections: `cargo xtask bench xds`.
//!
//! One program in three roles, each a process of its own, so that CPU and memory are told apart: `server` is
//! the library as a user would run it, `client` the load, and without a role the program starts both, gives
//! them orders over pipes, line by line, and writes the table. Start reading at [`orchestrator`].

mod client;
mod orchestrator;
mod process;
mod protocol;
mod requests;
mod resources;
mod server;
mod stats;
mod wire;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Gives back the memory of streams that have gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the xDS server with a fleet of real connections.
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
    /// Serve one fleet; orders on the standard input
    Server(server::Args),
    /// Be the fleet; orders on the standard input
    Client(client::Args),
}

fn main() -> Result<()> {
    process::raise_open_files_limit()?;
    let cli = Cli::parse();
    match &cli.role {
        None => orchestrator::run(&cli.plan),
        Some(Role::Server(args)) => server::run(args),
        Some(Role::Client(args)) => client::run(args),
    }
}
