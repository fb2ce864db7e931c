//! The `clairvoy` program.

use std::process::ExitCode;

use clap::Parser;

/// Gives back the memory of streams that have gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    clairvoy::cli::run(clairvoy::cli::Cli::parse())
}
