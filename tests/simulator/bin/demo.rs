//! `demo`: the whole product on one machine, with simulated model servers.

use std::process::ExitCode;

use clap::Parser;

use clairvoy_tests::{DemoOptions, run_demo};

/// Starts Clairvoy, two Envoys, Postgres and simulated model servers, and replays recorded demand at them.
///
/// Everything listens on the loopback address only. After 22 s one server becomes slow; while the demand
/// rises, webhooks add servers. Ctrl-C ends it all.
#[derive(Parser)]
#[command(name = "demo", version)]
struct Arguments {
    #[command(flatten)]
    options: DemoOptions,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { options } = Arguments::parse();
    // On the main thread, as the children die with the thread that starts them.
    Box::pin(run_demo(options)).await.unwrap_or_else(|error| {
        // A backtrace tells nothing to someone whose port is taken.
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
