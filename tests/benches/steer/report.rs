//! The tables, as a section of `docs/benchmarks.md`.

use std::fmt::Write as _;

use clairvoy_tests::quantile;

use crate::machine::machine;
use crate::measure::{Measured, Way};

/// Time between two scrapes of a backend, and between two decisions, seconds.
const INTERVAL_SECONDS: f64 = 1.0;
/// What the 99th percentile may take beyond that, seconds.
const GOAL_SECONDS: f64 = 0.25;

/// What a run found.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) backends: usize,
    pub(crate) pools: usize,
    pub(crate) measured: Measured,
    /// Part of the machine that was busy, 0 to 1.
    pub(crate) busy: f64,
}

impl Report {
    pub(crate) fn render(&self) -> String {
        let Self { backends, pools, measured, busy } = self;
        let date = chrono::Utc::now().format("%Y-%m-%d");
        let mut text = format!(
            "## From a scrape to Envoy\n\nWritten by `cargo xtask bench steer` on {date}, on {}. {backends} backends of one model in {pools} pools, each\n\
             scraped once a second; a real Envoy and Clairvoy with its Postgres on the same machine. At random times, one a second in\n\
             the mean, a random backend becomes slow, so that it gets a group and a weight of its own. No requests go through the Envoy\n\
             meanwhile; percentiles are of the changes that were not missed.\n\n\
             | backends | changes | missed | until the decision p50, ms | p99, ms | decided and published p50, ms | p99, ms | Envoy's ACK p50, ms | p99, ms | scrape to ACK p50, ms | p99, ms | beyond the interval p99, ms | machine, % |\n\
             |---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
            machine(),
        );
        let of = |part: fn(&Way) -> f64| {
            let mut values: Vec<f64> = measured.ways.iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            [0.5, 0.99].map(|level| 1e3 * quantile(&values, level))
        };
        let [waited, decided, acknowledged, all] =
            [of(|way| way.waited), of(|way| way.decided), of(|way| way.acknowledged), of(Way::all)];
        let beyond = all[1] - 1e3 * INTERVAL_SECONDS;
        let _ = writeln!(
            text,
            "| {backends} | {} | {} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {beyond:.0} | {:.0} |",
            measured.ways.len() + measured.missed,
            measured.missed,
            waited[0],
            waited[1],
            decided[0],
            decided[1],
            acknowledged[0],
            acknowledged[1],
            all[0],
            all[1],
            100.0 * busy,
        );
        text += "\n- scrape to ACK: from the moment when the first page was answered whose whole second was slow until Envoy's ACK of the\n  \
                 endpoints in which the backend has a group of its own, as it is written down for `clairvoy explain`\n\
                 - until the decision: decisions are made once a second, so a scrape waits for the next one, half a second in the mean; the\n  \
                 interval that may be exceeded is this second\n\
                 - missed: no such decision with an ACK within 10 s\n\n### Goals\n\n\
                 | goal | not more than | measured | |\n|---|---|---|---|\n";
        let verdict = |is_met: bool| match is_met {
            _ if measured.ways.is_empty() => "not measured",
            true => "met",
            false => "missed",
        };
        let goal = 1e3 * GOAL_SECONDS;
        let _ = writeln!(
            text,
            "| {backends} backends: scrape to ACK p99, beyond the interval, ms | {goal:.0} | {beyond:.0} | {} |",
            verdict(beyond <= goal)
        );
        let missed = measured.missed;
        let _ = writeln!(text, "| changes missed | 0 | {missed} | {} |", verdict(missed == 0));
        text
    }
}
