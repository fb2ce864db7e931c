//! What Envoys' access logs and load reports cost: `cargo xtask bench access-log`.
//!
//! Messages go to the services as a server hands them over, frame by frame, and what is read of them to a channel as the
//! controller's: decoding, sampling, summing up. Everything runs on one thread, and the time is its CPU. What comes before
//! (the kernel, HTTP/2) and after (the fleet's state) is not in it.

mod traffic;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use arc_swap::ArcSwap;
use axum::http::Request;
use bytes::Bytes;
use clap::Parser;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prometheus_client::registry::Registry;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use clairvoy::config;
use clairvoy::envoy::{Collector, EnvoyMetrics, EnvoyNews, Sampler};
use clairvoy_xds::{Intake, IntakeOptions, Overflow};

use traffic::{CLUSTERS, ENDPOINTS, ENTRIES, NODE_EXTENSIONS};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What one core should take.
const GOAL_ENTRIES_PER_SECOND: f64 = 20_000.0;
/// Messages of one round.
const MESSAGES: usize = 200;

/// Measures what Envoys tell.
#[derive(Parser)]
struct Args {
    /// Seconds instead of minutes
    #[arg(long)]
    quick: bool,
    /// Where the section of the page goes
    #[arg(long)]
    write: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// One line of a table.
struct Row {
    name: &'static str,
    bytes_each: f64,
    per_second: f64,
}

/// Which service is measured.
#[derive(Clone, Copy)]
enum What {
    Entries { most_per_second: f64 },
    Reports,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let _ = args.bench;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seconds = if args.quick { 0.3 } else { 10.0 };
    let run = |name, what, messages: &[Bytes], each| {
        let row = runtime.block_on(measure(name, what, messages, each, seconds))?;
        println!("{}: {:.0}/s", row.name, row.per_second);
        Ok::<_, anyhow::Error>(row)
    };
    let logs = traffic::access_logs(MESSAGES);
    let reports = traffic::load_reports(MESSAGES);
    let entries = [
        run("all are used", What::Entries { most_per_second: 1e12 }, &logs, ENTRIES)?,
        run("sampled to 20,000/s", What::Entries { most_per_second: 20_000.0 }, &logs, ENTRIES)?,
    ];
    let report = run("reports", What::Reports, &reports, 1)?;
    let section = section(&entries, &report);
    println!("{section}");
    if let Some(path) = &args.write {
        fs::write(path, &section).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Sends the messages again and again, each time on a stream of its own, until so much CPU time is spent.
async fn measure(
    name: &'static str,
    what: What,
    messages: &[Bytes],
    each: usize,
    seconds: f64,
) -> Result<Row> {
    let config = config::parse("telemetry: { access_log: { max_age: 1h } }\n");
    let config = Arc::new(ArcSwap::from_pointee(config.map_err(|faults| anyhow::anyhow!(faults))?));
    let mut options = IntakeOptions::default();
    // Nothing is to be dropped here.
    options.overflow = Overflow::Wait;
    let (intake, received) = Intake::new(options)?;
    let (news, mut told) = mpsc::channel::<EnvoyNews>(1000);
    let mut registry = Registry::default();
    let collector = Collector::new(config, news, EnvoyMetrics::register(&mut registry));
    let stop = CancellationToken::new();
    let collecting = tokio::spawn(async move {
        match what {
            What::Entries { most_per_second } => {
                collector.access_logs(received.access_logs, Sampler::new(most_per_second, 1), stop).await;
            }
            What::Reports => collector.load_reports(received.load_reports, stop).await,
        }
    });
    let taking = tokio::spawn(async move { while told.recv().await.is_some() {} });

    let (before, mut sent) = (cpu_seconds(), 0_u64);
    while cpu_seconds() - before < seconds {
        match what {
            What::Entries { .. } => {
                deliver(intake.access_log_service(), traffic::LOG_METHOD, messages).await?
            }
            What::Reports => {
                deliver(intake.load_reporting_service(), traffic::REPORT_METHOD, messages).await?
            }
        }
        sent += (messages.len() * each) as u64;
    }
    // The receivers end once they are empty.
    intake.shutdown();
    collecting.await?;
    let spent = cpu_seconds() - before;
    taking.await?;

    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, &registry)?;
    let count = |series: &str| -> u64 {
        let value = page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or(0)
    };
    let entries =
        |outcome: &str| count(&format!("clairvoy_envoy_log_entries_total{{outcome=\"{outcome}\"}}"));
    let done = match what {
        What::Entries { .. } => entries("kept") + entries("sampled_out"),
        What::Reports => count("clairvoy_envoy_load_reports_total{outcome=\"taken\"}"),
    };
    ensure!(done == sent, "{name}: {done} of {sent} were read:\n{page}");
    let bytes: usize = messages.iter().map(Bytes::len).sum();
    Ok(Row {
        name,
        bytes_each: bytes as f64 / (messages.len() * each) as f64,
        per_second: sent as f64 / spent,
    })
}

/// Sends the messages on one stream, and waits for its end.
async fn deliver<S>(mut service: S, method: &str, messages: &[Bytes]) -> Result<()>
where
    S: Service<Request<Body>, Response = axum::http::Response<Body>, Error = Infallible>,
{
    let frames: Vec<_> =
        messages.iter().map(|message| Ok::<_, Infallible>(Frame::data(message.clone()))).collect();
    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
    let request = Request::post(method).header("content-type", "application/grpc").body(body)?;
    let response = service.call(request).await?;
    let answer = response.into_body().collect().await.map_err(|status| anyhow::anyhow!("{status}"))?;
    let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status"));
    ensure!(status.is_none_or(|status| status == "0"), "the stream ended with {status:?}");
    Ok(())
}

fn section(entries: &[Row], report: &Row) -> String {
    let machine = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = machine.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let mut text = String::from("## What Envoys tell\n\n");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "Written by `cargo xtask bench access-log` on {}, on one core of {model}. Entries of access logs and load reports per second of CPU\n\
         time, from the frames of a stream until they are summed up for the controller. Messages of {ENTRIES} entries; reports of {CLUSTERS} clusters\n\
         with {ENDPOINTS} endpoints each, and the node of a real Envoy with {NODE_EXTENSIONS} extensions, which comes with every report.\n",
        chrono::Utc::now().format("%Y-%m-%d"),
    );
    text.push_str("| access log | bytes per entry | entries/s | of the goal |\n|---|---|---|---|\n");
    for Row { name, bytes_each, per_second } in entries {
        let ratio = per_second / GOAL_ENTRIES_PER_SECOND;
        let _ = writeln!(text, "| {name} | {bytes_each:.0} | **{per_second:.0}** | {ratio:.1}× |");
    }
    let slowest = entries.iter().map(|row| row.per_second).fold(f64::INFINITY, f64::min);
    let verdict = if slowest >= GOAL_ENTRIES_PER_SECOND { "met" } else { "missed" };
    let _ = writeln!(text, "\nGoal: ≥ {GOAL_ENTRIES_PER_SECOND:.0} entries/s on one core: {verdict}.\n");
    let Row { bytes_each, per_second, .. } = report;
    let _ = writeln!(
        text,
        "Load reports of {:.0} kB: **{per_second:.0}** reports/s; reporting every 10 s, {:.0} Envoys keep one core busy.",
        bytes_each / 1000.0,
        10.0 * per_second,
    );
    text
}
