//! One entry for people and for CI: fetches the tools, starts the demo, runs the tests and the checks.
//!
//! Depends on clap and anyhow only, so that it compiles in seconds on an empty machine. Start reading at
//! [`setup`]: the other commands call it and then run cargo or npm.

mod bench;
mod dashboard;
mod deb;
mod demo;
mod files;
mod http;
mod lint;
mod node;
mod pip;
mod screenshots;
mod setup;
mod sh;
mod stamp;
mod test;
mod tool;
mod version;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Everything one does with this repository: set it up, see it run, test it, check it.
///
/// New here? `cargo xtask demo` fetches what is missing, builds, and shows Clairvoy steering a small fleet
/// on this machine. It needs a Rust toolchain, a C compiler and python3 with pip; nothing is installed
/// outside the repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Setup(setup::Args),
    Demo(demo::Args),
    Test(test::Args),
    Lint(lint::Args),
    Bench(bench::Args),
    Screenshots(screenshots::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let workspace = Workspace::find()?;
    match cli.command {
        Command::Setup(args) => setup::run(&workspace, &args),
        Command::Demo(args) => demo::run(&workspace, &args),
        Command::Test(args) => test::run(&workspace, &args),
        Command::Lint(args) => lint::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Screenshots(args) => screenshots::run(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
