//! Starts server and scraper for each fleet, and writes the table.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;

use crate::process::machine;
use crate::scraper::Measured;

/// The plan of a run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the section for the page to this file
    #[arg(long)]
    write: Option<PathBuf>,
    /// A small fleet for seconds
    #[arg(long)]
    quick: bool,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 30)]
    seconds: u64,
}

/// Backends, and the page that they show.
const FLEETS: [(u32, &str); 3] = [(1000, "full"), (1000, "small"), (5000, "small")];

/// A fleet with its results.
struct Row {
    backends: u32,
    bytes: u64,
    series: u64,
    server_cores: f64,
    measured: Measured,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let machine = machine();
    let (warm_up, seconds) = if args.quick { (2, 3) } else { (5, args.seconds) };
    let mut rows = Vec::new();
    for (backends, page) in FLEETS {
        let backends = if args.quick { backends / 10 } else { backends };
        rows.push(fleet(backends, page, warm_up, seconds)?);
    }
    let section = section(&rows, &machine, seconds);
    println!("{section}");
    if let Some(path) = &args.write {
        std::fs::write(path, section).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn role(arguments: &[&str]) -> Result<(Child, BufReader<std::process::ChildStdout>)> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut child =
        Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output")?;
    Ok((child, BufReader::new(output)))
}

fn line(output: &mut BufReader<std::process::ChildStdout>) -> Result<String> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

fn fleet(backends: u32, page: &str, warm_up: u64, seconds: u64) -> Result<Row> {
    let (mut server, mut told) = role(&["server", "--page", page])?;
    let first = line(&mut told)?;
    let mut words = first.split(' ').map(str::parse::<u64>);
    let mut word = || words.next().context("the server told too little")?.context("no number");
    let (port, bytes, series) = (word()?, word()?, word()?);
    let numbers = [port, u64::from(backends), warm_up, seconds].map(|number| number.to_string());
    let [port, count, warm, long] = &numbers;
    let (mut scraper, mut measured) =
        role(&["scraper", "--port", port, "--backends", count, "--warm-up", warm, "--seconds", long])?;
    let measured = line(&mut measured)?;
    let ended = scraper.wait()?;
    // Without its standard input the server ends.
    drop(server.stdin.take());
    let cpu: f64 = line(&mut told)?.parse().context("the server told no CPU time")?;
    server.wait()?;
    ensure!(ended.success(), "the scraper failed");
    let measured = serde_json::from_str(&measured).context("the scraper told no result")?;
    Ok(Row { backends, bytes, series, server_cores: cpu / (warm_up + seconds) as f64, measured })
}

fn section(rows: &[Row], machine: &str, seconds: u64) -> String {
    let mut text = String::from("## Scraping\n\n");
    let date = Utc::now().format("%Y-%m-%d");
    let _ = writeln!(
        text,
        "Written by `cargo xtask bench scrape` on {date}, on {machine}. Scraper and simulated backends are processes of one machine and talk over\n\
         TCP on its loopback addresses, one address for each backend. Each is scraped once a second, for {seconds} s, with the engine left to be found\n\
         (`auto`); counters and gauges change each second.\n\n\
         | backends | page, kB | series | cores | CPU per scrape, µs | age p50, ms | age p99, ms | missed, % | memory, MiB | backends' process, cores |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    for row in rows {
        let Measured { cores, cpu_per_scrape_us, age_p50_ms, age_p99_ms, missed_percent, memory_mib, .. } =
            &row.measured;
        let _ = writeln!(
            text,
            "| {} | {:.1} | {} | {cores:.2} | {cpu_per_scrape_us:.0} | {age_p50_ms:.0} | {age_p99_ms:.0} | {missed_percent:.2} | {memory_mib:.0} | {:.2} |",
            row.backends,
            row.bytes as f64 / 1000.0,
            row.series,
            row.server_cores
        );
    }
    text.push_str(
        "\n- cores: CPU of the scraping process, user and system, by time\n\
         - age: of the newest sample of a backend, over all backends, looked at ten times a second; with a scrape each\n  \
         second and no delay it is evenly spread from 0 to 1000 ms\n\
         - missed: scrapes that were due and gave no sample\n\n### Goals\n\n\
         | goal | not more than | measured | |\n|---|---|---|---|\n",
    );
    let mut goal = |what: String, most: f64, measured: f64| {
        let verdict = if measured <= most { "met" } else { "missed" };
        let _ = writeln!(text, "| {what} | {most} | {measured:.2} | {verdict} |");
    };
    for row in rows {
        let fleet = format!("{} backends, {} series", row.backends, row.series);
        goal(format!("{fleet}: cores"), 1.0, row.measured.cores);
        goal(format!("{fleet}: age p99, ms"), 1100.0, row.measured.age_p99_ms);
        goal(format!("{fleet}: missed, %"), 0.1, row.measured.missed_percent);
    }
    text
}
