//! The command line.

mod api;
mod backtest;
mod bootstrap;
mod canary;
mod check;
mod drain;
mod explain;
mod export;
mod replay;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A predictive control plane for Envoy.
///
/// Clairvoy learns how much load each AI model will get and how long each backend will make a request wait, and steers
/// a fleet of Envoys by that, over xDS. No request passes through it.
#[derive(Debug, Parser)]
#[command(name = "clairvoy", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane.
    Serve(serve::Arguments),
    /// Print the bootstrap file of an Envoy that takes its configuration from Clairvoy.
    ///
    /// Example: clairvoy bootstrap --node-id edge-1 > envoy.yaml && envoy -c envoy.yaml
    Bootstrap(bootstrap::Arguments),
    /// Check that Clairvoy could run: configuration, database, backends.
    ///
    /// Ends with 1 when something would keep it from running, with 0 otherwise: a backend that does not answer yet is only
    /// named.
    Check(check::Arguments),
    /// Stop new requests to a backend, tell when those that run will have ended, and when it may be stopped.
    ///
    /// Asks the API of a `clairvoy serve` that runs. Ends with 0 once nothing runs at the backend any more; it stays in its
    /// pool, drained, until it is removed or registered again. Interrupting this leaves it draining.
    ///
    /// Example: clairvoy drain 10.0.1.11:8000 && systemctl stop vllm
    Drain(drain::Arguments),
    /// Have the canary of a model go on that has stepped back.
    ///
    /// Asks the API of a `clairvoy serve` that runs.
    ///
    /// Example: clairvoy canary resume chat
    Canary(canary::Arguments),
    /// Tell how good the forecasts would have been on past demand, or on past waits.
    ///
    /// Every step is forecast with nothing known but what lay before it, and compared with what came: with the last value,
    /// with the season before, and with what a reactive autoscaler would have done. Two runs give the same bytes.
    ///
    /// Examples: clairvoy backtest --series demand.csv --out forecasts.csv
    ///           clairvoy backtest --waits requests.csv --view control-plane
    Backtest(backtest::Arguments),
    /// Tell why a backend has its share of a model's requests, or had it at a time.
    ///
    /// The decision that was in force is made again from its record, down to the weight of the backend's group as Envoy was
    /// told it, and every term is shown; with a policy that goes by no prediction, what was recorded of it. When the model went
    /// by capacity shares at that time, it says so. Clairvoy may run meanwhile.
    ///
    /// Of a model it tells why its requests were refused, and why its canary stepped back.
    ///
    /// Examples: clairvoy explain 10.0.1.11:8000
    ///           clairvoy explain chat
    ///           clairvoy explain 10.0.1.11:8000 --at 2026-11-20T09:00:00Z --json
    Explain(explain::Arguments),
    /// Write what happened in a time to a file: telemetry, what it led to, and all that is needed to replay it.
    ///
    /// The file is CSV, one row for each thing in the order in which it came about. Rows of kind `sample` are telemetry, with
    /// a column for each field; the others hold JSON in the last column. Clairvoy may run meanwhile.
    ///
    /// Examples: clairvoy export --from 2h --out yesterday.csv.gz
    ///           clairvoy export --from 2026-11-20T09:00:00Z --to 2026-11-20T10:00:00Z > morning.csv
    Export(export::Arguments),
    /// Decide again what was decided in an export, or what would have been with other settings.
    ///
    /// The same code that runs live gets the same inputs on the clock of the file: no network, no database. Decisions are
    /// printed as JSON, one a line, and are compared with those in the file; two runs give the same bytes. Ends with 1 when
    /// decisions differ from what they are compared with.
    ///
    /// Examples: clairvoy replay morning.csv.gz > decisions.jsonl
    ///           clairvoy replay morning.csv.gz --config bolder.yaml --diff decisions.jsonl
    Replay(replay::Arguments),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print the version.
    Version,
}

/// The configuration file, as every command takes it.
#[derive(Clone, Debug, clap::Args)]
struct ConfigFile {
    /// The configuration file.
    #[arg(short, long, env = "CLAIRVOY_CONFIG", default_value = "clairvoy.yaml", value_name = "FILE")]
    config: PathBuf,
    /// Folder for state, instead of `data_dir`.
    #[arg(long, env = "CLAIRVOY_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Postgres to use, instead of `database.url`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
}

/// Runs the command of a command line.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(arguments) => serve::run(arguments),
        Command::Bootstrap(arguments) => bootstrap::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Canary(arguments) => canary::run(arguments),
        Command::Drain(arguments) => drain::run(arguments),
        Command::Backtest(arguments) => backtest::run(arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Schema => schema(),
        Command::Version => {
            println!("clairvoy {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn schema() -> anyhow::Result<ExitCode> {
    println!("{}", serde_json::to_string_pretty(&crate::config::schema())?);
    Ok(ExitCode::SUCCESS)
}
