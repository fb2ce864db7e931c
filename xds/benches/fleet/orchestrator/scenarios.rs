//! One run of each scenario. What does not end with every client up to date is an error, not a figure.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::figures::{Figures, FleetRun, StalledRun, StormRun};
use super::session::Session;
use super::{Args, Load};
use crate::process::{Usage, monotonic_ns};
use crate::protocol::{Summary, Watched};

/// Start, then changes of one cluster in a quiet fleet, then churn.
pub(super) fn fleet(args: &Args, load: Load) -> Result<FleetRun> {
    let mut session = Session::start(args, load)?;
    let per_stream = |kib: u64| kib as f64 / load.streams as f64;

    let idle = session.server_usage()?;
    let (client_idle, _) = session.client_usage()?;
    let opened = session.open()?;
    let started = session.settled()?;
    let start_ns = opened.last_ns.saturating_sub(opened.first_ns);
    let start_client = cores(&client_idle, &opened.usage, start_ns);

    let changes = change(args, load, &mut session)?;
    let churned = churn(args, load.streams, &mut session)?;
    session.check()?;

    Ok(FleetRun {
        figures: Figures {
            start_ms: milliseconds(start_ns),
            start_cpu_seconds: cpu_seconds(&idle, &started),
            change_p50_ms: milliseconds(changes.summary.p50_ns),
            change_p99_ms: milliseconds(changes.summary.p99_ns),
            change_last_ms: milliseconds(changes.summary.last_ns),
            change_cpu_ms: changes.server_cpu_seconds * 1e3 / args.changes.max(1) as f64,
            churn_p99_ms: milliseconds(churned.summary.p99_ns),
            churn_cores: churned.server_cores,
            update_cpu_us: churned.server_cpu_seconds * 1e6 / churned.updates.max(1) as f64,
            stream_kib: per_stream(started.rss_kib.saturating_sub(idle.rss_kib)),
        },
        client_cores: [start_client, changes.client_cores, churned.client_cores],
        churned_kib: per_stream(churned.peak_kib.saturating_sub(idle.rss_kib)),
        overtaken_per_cent: 100.0 * churned.summary.overtaken as f64 / churned.summary.samples.max(1) as f64,
        repeated_per_update: churned.repeated as f64 / churned.updates.max(1) as f64,
    })
}

struct Changes {
    summary: Summary,
    server_cpu_seconds: f64,
    client_cores: f64,
}

fn change(args: &Args, load: Load, session: &mut Session) -> Result<Changes> {
    let before = session.settled()?;
    let (mut busy_ns, mut client_ns) = (0, 0);
    for number in 0..args.changes {
        // Not in their order, so that no cache of the machine helps.
        let watched = Watched::One(number * 7 % args.clusters);
        let client_before = session.watch(watched)?;
        let (generation, at_ns) = session.publish(watched)?;
        let reached = session.wait()?;
        session.collect(vec![(generation, at_ns)])?;
        busy_ns += reached.last_ns.saturating_sub(at_ns);
        client_ns += reached.usage.cpu_ns.saturating_sub(client_before.cpu_ns);
        session.settled()?;
    }
    let after = session.server_usage()?;
    Ok(Changes {
        summary: session.summary(args.changes * load.streams)?,
        server_cpu_seconds: cpu_seconds(&before, &after),
        client_cores: client_ns as f64 / busy_ns.max(1) as f64,
    })
}

struct Churn {
    summary: Summary,
    server_cpu_seconds: f64,
    server_cores: f64,
    client_cores: f64,
    updates: u64,
    repeated: u64,
    peak_kib: u64,
}

/// Changes every weight each second; `live` streams take part.
fn churn(args: &Args, live: usize, session: &mut Session) -> Result<Churn> {
    session.watch(Watched::All)?;
    let before = session.settled()?;
    let (client_before, received_before) = session.client_usage()?;
    let mut published = Vec::new();
    let mut peak_kib = 0;
    let begun = Instant::now();
    for second in 1..=args.seconds {
        published.push(session.publish(Watched::All)?);
        // Where it is highest: half of the clients have the state, half are about to get it.
        thread::sleep(Duration::from_millis(100));
        peak_kib = peak_kib.max(session.server_usage()?.rss_kib);
        thread::sleep((begun + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
    }
    session.wait()?;
    let after = session.settled()?;
    let (client_after, received) = session.client_usage()?;
    let publishes = published.len();
    session.collect(published)?;
    let summary = session.summary(publishes * live)?;
    let elapsed_ns = after.at_ns.saturating_sub(before.at_ns);
    Ok(Churn {
        summary,
        server_cpu_seconds: cpu_seconds(&before, &after),
        server_cores: cores(&before, &after, elapsed_ns),
        client_cores: cores(&client_before, &client_after, elapsed_ns),
        updates: received.updates - received_before.updates,
        repeated: received.repeated - received_before.repeated,
        peak_kib: peak_kib.max(after.rss_kib),
    })
}

/// Every stream comes, goes, and comes back.
pub(super) fn storm(args: &Args, load: Load) -> Result<StormRun> {
    let mut session = Session::start(args, load)?;
    let mib = |usage: Usage| usage.rss_kib as f64 / 1024.0;
    let idle = mib(session.server_usage()?);
    session.open()?;
    let full = mib(session.settled()?);
    session.close()?;
    let gone = mib(deserted(&mut session)?);
    let back = session.open()?;
    let full_again = mib(session.settled()?);
    session.check()?;
    session.close()?;
    let gone_again = mib(deserted(&mut session)?);
    let back_ms = milliseconds(back.last_ns.saturating_sub(back.first_ns));
    Ok(StormRun { idle, full, gone, full_again, gone_again, back_ms })
}

/// What the server uses when its clients have gone and its publisher goes on, once a second: the allocator gives
/// back what has been free for a second when it is used again.
fn deserted(session: &mut Session) -> Result<Usage> {
    for _ in 0..4 {
        thread::sleep(Duration::from_secs(1));
        session.publish(Watched::All)?;
    }
    session.settled()
}

/// Churn with half of the clients alone, then with the other half beside them, who do not read, and in the end
/// read again.
pub(super) fn stalled(args: &Args, load: Load) -> Result<StalledRun> {
    let connections = load.streams.div_ceil(load.per_connection);
    let live: usize = (0..connections)
        .step_by(2)
        .map(|connection| load.per_connection.min(load.streams - connection * load.per_connection))
        .sum();
    let mut session = Session::start(args, Load { streams: live, stallable: false, ..load })?;
    session.open()?;
    let free = churn(args, live, &mut session)?;
    session.check()?;
    drop(session);

    let mut session = Session::start(args, load)?;
    session.open()?;
    let before = session.settled()?;
    session.stall(true)?;
    let churned = churn(args, live, &mut session)?;
    let resumed_ns = monotonic_ns();
    session.stall(false)?;
    let caught_up = session.wait()?;
    session.check()?;
    Ok(StalledRun {
        free_p99_ms: milliseconds(free.summary.p99_ns),
        stalled_p99_ms: milliseconds(churned.summary.p99_ns),
        held_kib: churned.peak_kib.saturating_sub(before.rss_kib) as f64
            / (load.streams - live).max(1) as f64,
        caught_up_ms: milliseconds(caught_up.last_ns.saturating_sub(resumed_ns)),
        client_cores: free.client_cores.max(churned.client_cores),
    })
}

fn cpu_seconds(before: &Usage, after: &Usage) -> f64 {
    after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9
}

fn cores(before: &Usage, after: &Usage, elapsed_ns: u64) -> f64 {
    cpu_seconds(before, after) * 1e9 / elapsed_ns.max(1) as f64
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}
