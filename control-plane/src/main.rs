//! The `clairvoy` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    clairvoy::cli::run(clairvoy::cli::Cli::parse())
}
