//! What pushed telemetry costs: `cargo xtask bench push`.
//!
//! Each format is sent to the intake as a server hands it over: the body in pieces of 16 KiB, as they come from a socket. The
//! time is the CPU of the process, all threads together, so a point per second stands for one core. What comes before (the
//! kernel, HTTP's framing) is not in it; what comes after the queue is told on its own.

mod load;
#[path = "../../src/push/tests/proto.rs"]
mod proto;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use arc_swap::ArcSwap;
use axum::http::Request;
use bytes::Bytes;
use clap::Parser;
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use clairvoy::config::{self, Push};
use clairvoy::push::{Directory, Intake, PushMetrics, PushSenders};
use clairvoy::telemetry::TelemetryMetrics;

use load::{BACKENDS, Format, Page};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What one core should take.
const GOAL_POINTS_PER_SECOND: f64 = 300_000.0;
/// Points of one request: what Prometheus sends at most unless it is told otherwise.
const POINTS: usize = 2000;
/// Pieces in which bodies come.
const PIECE: usize = 16 * 1024;

/// Measures the intakes of pushed telemetry.
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

/// Requests in a round.
const ROUNDS: i64 = 16;

/// One line of the table.
struct Row {
    name: &'static str,
    page: &'static str,
    bytes_per_point: f64,
    points_per_second: f64,
    assembled_per_second: Option<f64>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let _ = args.bench;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seconds = if args.quick { 0.3 } else { 5.0 };
    let mut rows = Vec::new();
    for page in [Page::Known, Page::Whole] {
        for format in Format::ALL {
            let row = runtime.block_on(measure(format, page, seconds))?;
            println!("{}", line(&row));
            rows.push(row);
        }
    }
    rows.push(by_prost(Format::OtlpHttp, "OTLP message, decoded by prost alone", seconds, |body| {
        black_box(proto::ExportRequest::decode(body).is_ok())
    }));
    rows.push(by_prost(
        Format::RemoteWriteMessage,
        "remote write message, decoded by prost alone",
        seconds,
        |body| black_box(proto::WriteRequest::decode(body).is_ok()),
    ));
    let report = report(&rows);
    println!("{report}");
    if let Some(path) = &args.write {
        fs::write(path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

async fn measure(format: Format, page: Page, seconds: f64) -> Result<Row> {
    let options = Push { max_age: config::Span::seconds(3600), ..Push::default() };
    let (mut sent_points, mut known, mut bytes) = (0_u64, 0_u64, 0_u64);
    let (mut taking, mut assembling) = (0.0, 0.0);
    while taking < seconds {
        // Rounds are as long as one sender's part of the queue, which nobody empties meanwhile.
        let now_ms = chrono::Utc::now().timestamp_millis();
        let bodies: Vec<Bytes> = (0..ROUNDS)
            .map(|round| load::body(format, page, POINTS, now_ms - 1000 * (ROUNDS - round)).into())
            .collect();
        let (outcomes_in, mut outcomes) = mpsc::channel(1_000_000);
        let metrics = PushMetrics::default();
        let (intake, assembly) = Intake::new(
            &options,
            PushSenders::default(),
            Arc::new(ArcSwap::from_pointee(directory()?)),
            outcomes_in,
            metrics.clone(),
            TelemetryMetrics::default(),
        );
        let requests: Vec<_> = bodies.iter().map(|body| request(format, body)).collect::<Result<_>>()?;
        let before = cpu_seconds();
        for request in requests {
            let answer = intake.answer(format.surface(), request).await;
            ensure!(answer.status().is_success(), "{format:?} was answered with {}", answer.status());
        }
        taking += cpu_seconds() - before;
        sent_points += (bodies.len() * POINTS) as u64;
        bytes += bodies.iter().map(|body| body.len() as u64).sum::<u64>();
        known += metrics.points();
        ensure!(metrics.points() > 0, "{format:?}: nothing was known");

        let stop = CancellationToken::new();
        let before = cpu_seconds();
        let task = tokio::spawn(assembly.run(stop.clone()));
        while metrics.queued_points() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assembling += cpu_seconds() - before;
        stop.cancel();
        task.await?;
        ensure!(outcomes.try_recv().is_ok(), "{format:?}: no sample was made");
    }
    Ok(Row {
        name: format.name(),
        page: page.name(),
        bytes_per_point: bytes as f64 / sent_points as f64,
        points_per_second: sent_points as f64 / taking,
        assembled_per_second: Some(known as f64 / assembling),
    })
}

type Pieces = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn request(format: Format, body: &Bytes) -> Result<Request<Pieces>> {
    let pieces: Vec<_> = body.chunks(PIECE).map(|piece| Ok(Frame::data(body.slice_ref(piece)))).collect();
    let mut request = Request::post(format.path());
    for (name, value) in format.headers() {
        request = request.header(*name, *value);
    }
    Ok(request.body(StreamBody::new(futures::stream::iter(pieces)))?)
}

fn directory() -> Result<Directory> {
    let list: Vec<String> = (0..BACKENDS).map(|index| format!("\"{}\"", load::address(index))).collect();
    let text = format!(
        "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels: [{{ name: m, pools: [p] }}]\n\
         pools: [{{ name: p, telemetry: push, backends: [{}] }}]\n",
        list.join(", ")
    );
    let config = config::parse(&text).map_err(|faults| anyhow::anyhow!(faults))?;
    let pool = config.pool("p").context("the pool is there")?;
    Ok(Directory::new(pool.backends.iter().map(|address| (*address, pool)), []))
}

/// What it would cost to build the whole tree of objects first, before anything is looked at.
fn by_prost(format: Format, name: &'static str, seconds: f64, decode: impl Fn(&[u8]) -> bool) -> Row {
    let body = load::body(format, Page::Whole, POINTS, 1_700_000_000_000);
    let (mut points, before) = (0_u64, cpu_seconds());
    let mut spent = 0.0;
    while spent < seconds / 2.0 {
        for _ in 0..16 {
            decode(&body);
            points += POINTS as u64;
        }
        spent = cpu_seconds() - before;
    }
    Row {
        name,
        page: Page::Whole.name(),
        bytes_per_point: body.len() as f64 / POINTS as f64,
        points_per_second: points as f64 / spent,
        assembled_per_second: None,
    }
}

fn line(row: &Row) -> String {
    let Row { name, page, bytes_per_point, points_per_second, assembled_per_second } = row;
    let assembled = assembled_per_second.map_or(String::new(), |rate| format!("{:.0}", rate / 1000.0));
    format!(
        "| {name} | {page} | {bytes_per_point:.0} | **{:.0}** | {assembled} |",
        points_per_second / 1000.0
    )
}

fn report(rows: &[Row]) -> String {
    let machine = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = machine.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown CPU", |(_, model)| model);
    let mut text = String::from("## Pushed telemetry\n\n");
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "Written by `cargo xtask bench push` on {}, on {model}. Thousands of points per second of CPU time, so of one core: from the\n\
         pieces of a body to the queue (unpacking, decoding, finding backend and name, the answer), and behind the queue, until samples\n\
         are made, for the known points alone. Requests of {POINTS} points of {BACKENDS} backends; either only series that engines have, as\n\
         after a `keep` rule, or all that a vLLM server exports. Last, what prost needs for the same message to build its objects.\n",
        chrono::Utc::now().format("%Y-%m-%d"),
    );
    text.push_str(
        "| format | series | bytes per point | to the queue, 1000 points/s | behind it, 1000 points/s |\n",
    );
    text.push_str("|---|---|---|---|---|\n");
    for row in rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    let slowest = rows
        .iter()
        .filter(|row| row.assembled_per_second.is_some() && !row.name.contains("JSON"))
        .map(|row| row.points_per_second)
        .fold(f64::INFINITY, f64::min);
    let verdict = if slowest >= GOAL_POINTS_PER_SECOND { "met" } else { "missed" };
    let _ = writeln!(
        text,
        "\nGoal for OTLP as protobuf and for remote write: ≥ {:.0} thousand points/s to the queue: {verdict}.",
        GOAL_POINTS_PER_SECOND / 1000.0
    );
    text
}
