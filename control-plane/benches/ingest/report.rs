//! The tables, as a section of `docs/benchmarks.md`.

use std::fmt::Write as _;

use crate::Args;
use crate::charts::Charted;
use crate::figures::{Spread, short};
use crate::ingest::Ingested;

/// A chart of two weeks may take this long, in milliseconds.
const CHART_MS: f64 = 100.0;
const DAY: f64 = 86_400.0;
const GIB: f64 = 1_073_741_824.0;

pub(crate) fn render(
    args: &Args,
    machine: &str,
    ingested: Option<&Ingested>,
    charted: Option<&Charted>,
) -> String {
    let date = chrono::Utc::now().format("%Y-%m-%d");
    let mut parts = vec![format!(
        "## Store\n\nWritten by `cargo xtask bench ingest` on {date}, on {machine}. Postgres is the embedded one with its usual\n\
         settings, on the same machine and disk. Told are medians, with the least and the greatest in brackets.\n"
    )];
    let mut goals = String::new();
    if let Some(ingested) = ingested {
        parts.push(ingest(args, ingested, &mut goals));
    }
    if let Some(charted) = charted {
        parts.push(charts(args, charted, &mut goals));
    }
    if let (Some(ingested), Some(charted)) = (ingested, charted) {
        parts.push(disk(ingested, charted));
    }
    parts.insert(1, format!("| goal | | measured | |\n|---|---|---|---|\n{goals}"));
    parts.join("\n")
}

fn ingest(args: &Args, measured: &Ingested, goals: &mut String) -> String {
    let ours = Spread::of(measured.ours.iter().map(|run| run.rows_per_second));
    let psql = Spread::of(measured.psql.iter().copied());
    let ratios = measured.ours.iter().zip(&measured.psql).map(|(ours, psql)| ours.rows_per_second / psql);
    let ratio = Spread::of(ratios);
    let memory = Spread::of(measured.ours.iter().map(|run| run.memory_mib));
    // A queue, and the batches and buffers of two connections.
    let bound = measured.queue_mib * 2.0;
    goal(
        goals,
        "telemetry written, in parts of `psql \\copy`",
        "≥ 1.0×",
        &format!("{ratio}×"),
        ratio.median >= 1.0,
    );
    let told = format!("{memory} MiB");
    goal(goals, "memory of it", &format!("≤ {} MiB", short(bound)), &told, memory.max <= bound);
    format!(
        "### Telemetry into Postgres\n\n{} rows of {} backends, every field filled; number of runs: {}. Ours: from the first parsed sample \
         until the last row is\ncommitted, in batches of one transaction each, with their marks. psql: `\\copy … (format binary)` of the same \
         rows from\na file, in one transaction, into the same table with the same indexes and the same `synchronous_commit`, in turn with \
         ours.\n\n| | rows/s | CPU of the writer per row, µs | memory, MiB |\n|---|---|---|---|\n| **clairvoy** | {ours} | {} | {memory} |\n\
         | psql | {psql} | | |\n\nMemory is that of the process beyond what it had before, at most, while up to half of the queue of {} rows \
         is in use; all of\nthe queue takes {} MiB. A minute of all backends is rolled up in {} ms.\n",
        args.rows,
        args.backends,
        args.runs,
        Spread::of(measured.ours.iter().map(|run| run.cpu_us_per_row)),
        measured.queue_rows,
        short(measured.queue_mib),
        short(measured.minute_ms),
    )
}

fn charts(args: &Args, measured: &Charted, goals: &mut String) -> String {
    let whole = format!("{} days of", args.days);
    let of_all = measured.charts.iter().filter(|(what, ..)| what.starts_with(&whole));
    let slowest = of_all.map(|(_, _, taken)| taken.max).fold(0.0, f64::max);
    let (limit, told) = (format!("< {CHART_MS} ms"), format!("{} ms", short(slowest)));
    goal(goals, &format!("slowest chart of {} days", args.days), &limit, &told, slowest < CHART_MS);
    let mut text = format!(
        "### Charts\n\n{} rows of minutes: {} days of {} backends. Each chart is read 40 times, of a backend never the same twice.\n\n\
         | chart | points | ms |\n|---|---|---|\n",
        measured.rows, args.days, args.backends
    );
    for (what, points, taken) in &measured.charts {
        let _ = writeln!(text, "| {what} | {points} | {taken} |");
    }
    let _ = writeln!(text, "\nAn hour of all backends is rolled up in {} ms.", short(measured.hour_ms));
    text
}

fn disk(ingested: &Ingested, charted: &Charted) -> String {
    let mut text = "### Disk\n\nTables with their indexes, before compression of any kind. A year: what is there after one, with the usual \
                    retention, of\n1,000 backends scraped once a second.\n\n| rows | bytes of a row | bytes per backend-second | kept | GiB of a year \
                    |\n|---|---|---|---|---|\n"
        .to_owned();
    let rows = [
        ("samples", ingested.bytes_per_row, 1.0, 7.0, 1_000.0),
        ("recorded inputs of 1,000 backends", ingested.page_bytes, 1.0, 7.0, 1.0),
        ("minutes of backends", charted.minute_bytes, 60.0, 90.0, 1_000.0),
        ("hours of backends", charted.hour_bytes, 3_600.0, 365.0, 1_000.0),
        ("minutes of 11 groups", charted.group_minute_bytes, 60.0, 90.0, 11.0),
        ("hours of 11 groups", charted.group_hour_bytes, 3_600.0, 365.0, 11.0),
    ];
    let mut total = 0.0;
    for (what, bytes, seconds, days, count) in rows {
        let gib = bytes / seconds * DAY * days * count / GIB;
        total += gib;
        let per_second = bytes / seconds * count / 1_000.0;
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {days} days | {} |",
            short(bytes),
            short(per_second),
            short(gib)
        );
    }
    let rolled_up = charted.minute_bytes / 60.0 + charted.hour_bytes / 3_600.0;
    let _ = writeln!(
        text,
        "\nTogether {} GiB. After the samples have gone, a backend-second takes {} bytes, and after the minutes {}.",
        short(total),
        short(rolled_up),
        short(charted.hour_bytes / 3_600.0)
    );
    text
}

fn goal(goals: &mut String, what: &str, limit: &str, measured: &str, is_met: bool) {
    let outcome = if is_met { "met" } else { "missed" };
    let _ = writeln!(goals, "| {what} | {limit} | {measured} | {outcome} |");
}
