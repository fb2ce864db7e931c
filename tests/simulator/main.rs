//! `simulator`: one simulated model server as a process.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use clairvoy_tests::{Effects, ServerConfig, SimulatedServer, SpeedClass};

/// A simulated model server: vLLM's API and metrics, no model, no GPU.
///
/// It answers with made-up text at the pace of a continuous-batching engine, so that routing, forecasting
/// and scaling can be tried on a laptop. Everything it shows says that it is simulated.
#[derive(Debug, Parser)]
#[command(name = "simulator", version, after_help = AFTER_HELP)]
struct Arguments {
    /// Address to listen on; port 0 lets the system choose. The address is printed on the first line.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Name of the model to serve; requests for another one get 404.
    #[arg(long, default_value = "chat-large", value_name = "NAME")]
    model: String,
    /// Speed: fast (sustains about 8 requests/s at a TTFT p95 of 2 s), mid (4), modest (2.7) or slow (2), for prompts of
    /// about 2000 tokens and 28 tokens of output.
    #[arg(long, default_value = "fast", value_name = "CLASS")]
    class: SpeedClass,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
    /// Cold start: connections are refused for so long.
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = seconds)]
    load_seconds: f64,
    /// Iteration times exactly linear: no noise, no preemption, no prefix cache, no super-linear batching.
    #[arg(long)]
    plain: bool,
}

const AFTER_HELP: &str = r#"Examples:
  simulator --listen 127.0.0.1:9001 --class fast
  curl -N 127.0.0.1:9001/v1/chat/completions -d '{"model": "chat-large", "stream": true,
    "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}'
  curl 127.0.0.1:9001/metrics
  curl 127.0.0.1:9001/simulator/state

Request headers, in tokens:
  x-simulator-prompt-tokens  length of the prompt (default: a quarter of its characters)
  x-simulator-output-tokens  length of the answer, unless max_tokens is less (default: 128)

Faults, while it runs; what is left out heals:
  curl 127.0.0.1:9001/simulator/faults -d '{"slow_factor": 4}'
  curl 127.0.0.1:9001/simulator/faults -d '{"error_rate": 0.1, "metrics_garbage": true}'
  others: "hang", "metrics_hang", "metrics_huge", "die"

SIGTERM or Ctrl-C closes the port and lets running answers finish (30 s at most); a second one ends at once.
Exit status 1 after the fault "die"."#;

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from 0 to 86400".to_owned()),
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let server = SimulatedServer::start(ServerConfig {
        listen: arguments.listen,
        model: arguments.model.clone(),
        class: arguments.class,
        effects: if arguments.plain { Effects::none() } else { Effects::all() },
        seed: arguments.seed,
        load_delay: Duration::from_secs_f64(arguments.load_seconds),
    })?;
    println!("simulated {} server for {} on {}", arguments.class, arguments.model, server.address());

    tokio::select! {
        () = server.closed() => {}
        _ = terminate.recv() => graceful(&server, &mut terminate, &mut interrupt).await,
        _ = interrupt.recv() => graceful(&server, &mut terminate, &mut interrupt).await,
    }
    Ok(if server.was_killed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn graceful(
    server: &SimulatedServer,
    terminate: &mut tokio::signal::unix::Signal,
    interrupt: &mut tokio::signal::unix::Signal,
) {
    tracing::info!("stopping: running answers finish");
    tokio::select! {
        () = server.stop() => {}
        _ = terminate.recv() => server.kill(),
        _ = interrupt.recv() => server.kill(),
    }
}
