//! The tables, as a section of `docs/benchmarks.md`.

mod text;

use std::fmt::Write as _;

use super::figures::{
    CACHE, COLUMNS, Column, Figures, Fleet, FleetRun, Measured, PEERS, Peer, Row, SOTW_RATIO, StalledRun,
    StormRun, TARGET_STREAMS, TARGETS, Target,
};
use super::{Args, Load, Server};
use crate::protocol::Variant;
use crate::stats::{Spread, short};

/// The load client may use this part of its threads before it, and not the server, could be what is measured.
const CLIENT_LIMIT: f64 = 0.9;

const WINDOWS: [&str; 3] = ["start", "change", "churn"];

/// Returns the whole section.
pub(super) fn render(args: &Args, machine: &str, measured: &Measured) -> String {
    let mut parts = vec![text::head(args, machine)];
    if !measured.fleets.is_empty() {
        let rows: String = measured.fleets.iter().map(|fleet| with_peers(args, fleet)).collect();
        parts.push(format!("### Fleets\n\n{}{rows}\n{}", fleet_head(), text::COLUMNS));
        parts.push(targets(args, &measured.fleets));
    }
    parts.extend(measured.big.as_ref().map(|row| big(args, row)));
    parts.extend(measured.stalled.as_ref().map(|row| stalled(args, row)));
    parts.extend(measured.storm.as_ref().map(storm));
    parts.push(text::CHECKS.into());
    parts.join("\n")
}

fn fleet_head() -> String {
    let titles = COLUMNS.map(|(title, _)| title).join(" | ");
    let rule = "---|".repeat(COLUMNS.len());
    format!("| streams | server | {titles} | load client, cores | note |\n|---|---|{rule}---|---|\n")
}

fn with_peers(args: &Args, measured: &Fleet) -> String {
    let mut text = fleet(args, &measured.ours);
    if let Some(peer) = &measured.peer {
        text += &fleet(args, peer);
        text +=
            &part(&measured.ours, |figure| peer.spread(|run| figure(&run.figures)).map(|peer| peer.median));
    }
    for peer in recorded(args, measured.ours.load) {
        let cells = COLUMNS.map(|(_, figure)| short(figure(&peer.figures)));
        let _ = writeln!(text, "| | {}, recorded | {} | | |", peer.name, cells.join(" | "));
        text += &part(&measured.ours, |figure| Some(figure(&peer.figures)));
    }
    text
}

/// Our figures as parts of others'.
fn part(ours: &Row<FleetRun>, of: impl Fn(fn(&Figures) -> f64) -> Option<f64>) -> String {
    let ratios = COLUMNS.map(|(_, figure)| {
        let ours = ours.spread(|run| figure(&run.figures));
        ours.zip(of(figure))
            .map_or_else(|| "–".into(), |(ours, peer)| format!("{}×", short(ours.median / peer)))
    });
    format!("| | part of it | {} | | |\n", ratios.join(" | "))
}

/// The peers that were recorded in the same setting.
fn recorded(args: &Args, load: Load) -> impl Iterator<Item = &'static Peer> {
    let same = args.clusters == 50 && args.endpoints == 20 && load.per_connection == 1;
    PEERS.iter().filter(move |peer| {
        same && peer.streams == load.streams && peer.is_delta == (load.variant == Variant::Delta)
    })
}

fn fleet(args: &Args, row: &Row<FleetRun>) -> String {
    let name = match row.load.server {
        Server::Ours => format!("**clairvoy-xds, {}**", row.load.variant.name()),
        Server::Peer => format!("{}, in turn with ours", args.peer_name),
    };
    let cells = COLUMNS.map(|(_, figure)| shown(row.spread(|run| figure(&run.figures))));
    let cores = [0, 1, 2].map(|window| shown(row.spread(|run| run.client_cores[window])));
    format!(
        "| {} | {name} | {} | {} | {} |\n",
        row.load.streams,
        cells.join(" | "),
        cores.join(" / "),
        note(args, row)
    )
}

fn shown(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".into(), |spread| spread.to_string())
}

fn note(args: &Args, row: &Row<FleetRun>) -> String {
    if let Some(reason) = &row.failure {
        return format!("failed: {}", reason.replace('|', "/").replace('\n', " "));
    }
    let void: Vec<_> = (0..WINDOWS.len()).filter(|&window| is_void(args, row, window)).collect();
    let mut notes = Vec::new();
    if !void.is_empty() {
        let windows: Vec<_> = void.iter().map(|&window| WINDOWS[window]).collect();
        notes.push(format!("void: client at its limit ({})", windows.join(", ")));
    }
    let mut tell = |figure: fn(&FleetRun) -> f64, unit: &str| {
        if let Some(spread) = row.spread(figure).filter(|spread| spread.max > 0.0) {
            notes.push(format!("{spread}{unit}"));
        }
    };
    tell(|run| run.churned_kib, " KiB per stream in churn");
    tell(|run| run.overtaken_per_cent, " % overtaken");
    tell(|run| run.repeated_per_update, " sent again per update");
    notes.join("; ")
}

fn is_void(args: &Args, row: &Row<FleetRun>, window: usize) -> bool {
    let limit = CLIENT_LIMIT * args.client_threads as f64;
    row.spread(|run| run.client_cores[window]).is_some_and(|cores| cores.median > limit)
}

fn targets(args: &Args, fleets: &[Fleet]) -> String {
    let at = |variant: Variant| {
        fleets.iter().find(|fleet| {
            let Load { variant: its, streams, .. } = fleet.ours.load;
            its == variant && streams == TARGET_STREAMS
        })
    };
    let Some(Fleet { ours: delta, peer }) = at(Variant::Delta) else {
        return format!("### Goals\n\nNot measured: they are set at {TARGET_STREAMS} delta streams.\n");
    };
    let against = match peer {
        Some(_) => format!("{}, measured in turn with ours", args.peer_name),
        None => format!("{CACHE}, as recorded"),
    };
    let mut text = format!(
        "### Goals\n\nAt {TARGET_STREAMS} streams. The first five are parts of the figures of {against}.\n\n\
         | goal | not more than | measured | |\n|---|---|---|---|\n"
    );
    let recorded = recorded(args, delta.load).find(|peer| peer.name == CACHE);
    for Target { what, ratio, figure, window } in TARGETS {
        let ours = delta.spread(|run| figure(&run.figures));
        let theirs = match peer {
            Some(peer) => peer.spread(|run| figure(&run.figures)).map(|spread| spread.median),
            None => recorded.map(|peer| figure(&peer.figures)),
        };
        let part = theirs.zip(ours).map(|(theirs, ours)| ours.median / theirs);
        let void = window.is_some_and(|window| is_void(args, delta, window));
        text += &goal(what, ratio, part, void);
    }
    let compared: [Column; 3] = [
        ("state of the world against our delta: CPU per change", |f| f.change_cpu_ms),
        ("state of the world against our delta: CPU per update", |f| f.update_cpu_us),
        ("state of the world against our delta: memory", |f| f.stream_kib),
    ];
    for (what, figure) in compared {
        let ours = delta.spread(|run| figure(&run.figures));
        let sotw = at(Variant::Sotw).and_then(|fleet| fleet.ours.spread(|run| figure(&run.figures)));
        let part = sotw.zip(ours).map(|(sotw, ours)| sotw.median / ours.median);
        text += &goal(what, SOTW_RATIO, part, false);
    }
    text
}

fn goal(what: &str, limit: f64, part: Option<f64>, void: bool) -> String {
    let outcome = match part {
        _ if void => "void: client at its limit",
        None => "not measured",
        Some(part) if part <= limit => "met",
        Some(_) => "missed",
    };
    let measured = part.map_or_else(|| "–".into(), |part| format!("{}×", short(part)));
    format!("| {what} | {limit}× | {measured} | {outcome} |\n")
}

fn big(args: &Args, row: &Row<FleetRun>) -> String {
    let cores = row.spread(|run| run.figures.churn_cores);
    let p99 = row.spread(|run| run.figures.churn_p99_ms);
    let void = is_void(args, row, 2);
    let Load { streams, per_connection, .. } = row.load;
    format!(
        "### Very many streams\n\n{streams} delta streams, {per_connection} to a connection.\n\n{}{}\n| goal under \
         churn | not more than | measured | |\n|---|---|---|---|\n{}{}",
        fleet_head(),
        fleet(args, row),
        absolute("cores of the server", 1.0, cores, void),
        absolute("p99, ms", 1000.0, p99, void),
    )
}

fn absolute(what: &str, limit: f64, measured: Option<Spread>, void: bool) -> String {
    let outcome = match measured {
        _ if void => "void: client at its limit",
        None => "not measured",
        Some(spread) if spread.median <= limit => "met",
        Some(_) => "missed",
    };
    format!("| {what} | {limit} | {} | {outcome} |\n", shown(measured))
}

fn stalled(args: &Args, row: &Row<StalledRun>) -> String {
    let limit = CLIENT_LIMIT * args.client_threads as f64;
    let void = row.spread(|run| run.client_cores).is_some_and(|cores| cores.median > limit);
    let cells = [
        shown(row.spread(|run| run.free_p99_ms)),
        shown(row.spread(|run| run.stalled_p99_ms)),
        shown(row.spread(|run| run.held_kib)),
        shown(row.spread(|run| run.caught_up_ms)),
        shown(row.spread(|run| run.client_cores)),
        note_of(row, void),
    ];
    format!(
        "### Clients that do not read\n\n{} delta streams under churn, of which every second connection is not read, \
         and in the end read again. For comparison, the others alone.\n\n| p99 of the others alone, ms | p99 beside the stalled, ms | \
         server's memory per stalled stream, KiB | caught up in, ms | load client, cores | note \
         |\n|---|---|---|---|---|---|\n| {} |\n",
        row.load.streams,
        cells.join(" | ")
    )
}

fn storm(row: &Row<StormRun>) -> String {
    let cells = [
        shown(row.spread(|run| run.idle)),
        shown(row.spread(|run| run.full)),
        shown(row.spread(|run| run.gone)),
        shown(row.spread(|run| run.full_again)),
        shown(row.spread(|run| run.gone_again)),
        shown(row.spread(|run| run.back_ms)),
        note_of(row, false),
    ];
    format!(
        "### Coming and going\n\nThe server's memory, MiB, while {} delta streams come, go, come back and go, each \
         with its connection. Gone: 4 s later, in which the publisher goes on.\n\n| before | all there | gone | all back | gone again | back in, ms | note \
         |\n|---|---|---|---|---|---|---|\n| {} |\n",
        row.load.streams,
        cells.join(" | ")
    )
}

fn note_of<R>(row: &Row<R>, void: bool) -> String {
    match &row.failure {
        Some(reason) => format!("failed: {}", reason.replace('|', "/").replace('\n', " ")),
        None if void => "void: client at its limit".into(),
        None => String::new(),
    }
}
