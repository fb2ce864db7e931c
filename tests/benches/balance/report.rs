//! The tables, as a section of `docs/benchmarks.md`.

use std::fmt::Write as _;

use clairvoy_tests::{
    Cell, CellResult, Gpu, Handed, LATENESS_BOUND_SECONDS, SizeSet, Summary, Verdict, capacity_rps, judge,
};

use crate::clairvoy::SHEDDING;
use crate::machine::machine;
use crate::run::Order;

/// The folder of the pictures, as the page names it.
pub(crate) const PICTURES: &str = "images/balance";

pub(crate) fn render(results: &[CellResult], order: &Order, rounds: usize) -> String {
    let mut text = introduction(results, order);
    text += "\n### Goals\n\nRatios of p99 above the floor are geometric means over cells, with 95 % intervals; the other figures have none.\n\
             Cells below a load of 0.5 count for the two goals beside `rr` only.\n\n\
             | goal | | measured | |\n|---|---|---|---|\n";
    for goal in judge(results, rounds) {
        let outcome = match goal.verdict {
            Verdict::Met => "met",
            Verdict::Missed => "missed",
            Verdict::Unmeasured => "not measured",
        };
        let _ = writeln!(text, "| {} | {} | {} | {outcome} |", goal.what, goal.wanted, goal.measured);
    }
    text += &told_and_given(results);
    text += "\n### Cells\n\n- TTFT, TPOT, latency: time to the first token, mean time between two tokens of a request, time to the last token\n\
             - above floor: TTFT p99 less that of the same requests on idle machines, spread over the classes by capacity; below 0 where\n  \
             they met faster machines. In ratios it is 5 % of the floor at least\n\
             - failed: a request that failed counts with its time and 10 s more (in TTFT only where no token came)\n\
             - within SLO: requests that kept both the TTFT and the TPOT promised for their sizes\n\
             - late: 99th percentile of how late requests left / how late the servers' engines woke up; CPU: of the whole machine\n";
    for &cell in &order.cells {
        for &seed in &order.seeds {
            let of_cell = results.iter().filter(|result| result.cell == cell && result.seed == seed);
            let of_cell: Vec<&CellResult> = of_cell.collect();
            if !of_cell.is_empty() {
                table(&mut text, cell, seed, order.seeds.len() > 1, &of_cell, rounds);
            }
        }
    }
    text
}

/// Whether Envoys hand out what they are told, under streaming load and with shares that move.
fn told_and_given(results: &[CellResult]) -> String {
    let rows: Vec<(&CellResult, Handed)> =
        results.iter().filter_map(|result| Some((result, Handed::new(result)?))).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = "\n### Shares told, and given\n\nOver windows of 10 s, by classes of machines: the root mean square of the difference between the share that Envoys were told and that of the requests\n\
                    which the machines got, and what it were, had each request been drawn by the shares that were told. Beside it the part of the traffic that was moved from a second to the next.\n\n\
                    | cell | policy | seed | difference, points | by chance | moved in a second, % | at most |\n|---|---|---|---|---|---|---|\n"
        .to_owned();
    for (result, Handed { difference, by_chance, mean_step, largest_step }) in rows {
        let percents = [difference, by_chance].map(|share| format!("{:.2}", 100.0 * share)).join(" | ");
        let steps = [mean_step, largest_step].map(|part| format!("{:.1}", 100.0 * part)).join(" | ");
        let CellResult { cell, policy, seed, .. } = result;
        let _ = writeln!(text, "| {cell} | `{policy}` | {seed} | {percents} | {steps} |");
    }
    text
}

fn introduction(results: &[CellResult], order: &Order) -> String {
    let date = chrono::Utc::now().format("%Y-%m-%d");
    let time = if order.speed > 1.0 {
        format!("Time runs {} times as fast as the clock; figures are of the simulated time.\n", order.speed)
    } else {
        String::new()
    };
    let mut text = format!(
        "## Balancing\n\nWritten by `cargo xtask bench balance` on {date}, on {}. Four real Envoys, sixteen simulated backends\n\
         of four speeds, four of each, the same requests for each policy, after {:.0} s of the same traffic. The backends batch\n\
         continuously and have what a linear model lacks: noise, super-linear batches, preemption, prefix caches.\n\
         Loads are parts of the capacity measured for the sizes at hand. Cells may be measured side by side by several processes,\n\
         and beside other work of a lower priority: a cell in which the rig was late by more than {:.0} ms\n\
         (99th percentile) does not count. {time}\n\
         `predictive` is Clairvoy, which has to learn the capacities; `static-locality` has the same form in Envoy with shares\n\
         by the measured capacities that never change, `exact-rr` the same shares for round robin. `rr`, `lr2`, `full-scan` and\n\
         `orca` are Envoy's own. `predictive-shedding` may refuse requests (`shedding: {SHEDDING}`), and is measured\n\
         where more come than the fleet holds; a refused request missed its objective, and counts with its time and 10 s more.\n\n\
         Not every combination is measured: all loads for steady code only, below 0.50 for `predictive` and `rr` alone; heavy sizes at\n\
         0.70 and 0.85 (with a slow machine at 0.70), faults and changes at 0.70 and 0.85, a surge at 0.50, a dead zone at 0.70, machines\n\
         that are alike at 0.85. Where a machine joins, the others have the load of the cell while nothing is measured, demand rises by\n\
         what the new one is to take when measuring begins, and it is there a quarter of the time later. Each cell has a picture of shares and TTFT over time. The same command draws them;\n\
         `-- --pictures DIR` elsewhere.\n\n\
         The backends are simulated GPUs, after data sheets of {}, each four times slower so that one\n\
         computer can play sixteen: the fastest serves about eight times as much as the slowest. The more alike machines are, the less there is to gain: see the cell of machines that are alike.\n\n\
         | sizes | requests/s of a machine ({}) | of the fleet | TTFT promised, s | TPOT promised, ms |\n|---|---|---|---|---|\n",
        machine(),
        order.lengths.warm_up_seconds / order.speed,
        LATENESS_BOUND_SECONDS * 1e3,
        Gpu::ALL.map(Gpu::name).join(", "),
        Gpu::ALL.map(Gpu::name).join(", "),
    );
    let Some(first) = results.first() else { return text };
    for set in SizeSet::ALL {
        let Some(basis) = first.bases.iter().find(|basis| basis.sizes == set) else { continue };
        let _ = writeln!(
            text,
            "| {} | {} | {:.1} | {:.2} | {:.0} |",
            set.name(),
            basis.rps.map(|rps| format!("{rps:.2}")).join(", "),
            capacity_rps(&first.machines, &basis.rps),
            basis.slo.ttft_seconds,
            basis.slo.tpot_seconds * 1e3,
        );
    }
    text
}

/// The picture of a cell.
pub(crate) fn file_name(cell: Cell, seed: u64) -> String {
    format!("{cell}-seed{seed}.svg")
}

fn table(text: &mut String, cell: Cell, seed: u64, has_seeds: bool, results: &[&CellResult], rounds: usize) {
    let with_seed = if has_seeds { format!(", seed {seed}") } else { String::new() };
    let floor = results.first().map_or(f64::NAN, |result| result.floor_seconds());
    let _ = write!(
        text,
        "\n#### {cell}{with_seed}\n\nFloor: {floor:.2} s. [Shares and TTFT over time]({PICTURES}/{}).\n\n\
         | policy | TTFT p50, s | p95 | p99 | above floor | TPOT p95, ms | p99 | latency, mean, s | within SLO, % | requests | failed | \
         late, ms | CPU, % |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        file_name(cell, seed),
    );
    let best =
        results.iter().map(|result| Summary::new(result, 1).ttft_p99.estimate).fold(f64::INFINITY, f64::min);
    for result in results {
        let summary = Summary::new(result, rounds);
        let health = &result.health;
        let p99 = summary.ttft_p99;
        let mark = if p99.estimate <= best { "**" } else { "" };
        let void = if health.is_good() { "" } else { " (does not count)" };
        let _ = writeln!(
            text,
            "| {}{void} | {:.2} | {:.2} | {mark}{:.2}{mark} ({:.2}–{:.2}) | {:.2} | {:.0} | {:.0} | {:.2} | {:.1} | {} | {} | {:.1} / {:.1} | {:.0} |",
            result.policy,
            summary.ttft_p50,
            summary.ttft_p95,
            p99.estimate,
            p99.low,
            p99.high,
            summary.above_floor,
            summary.tpot_p95 * 1e3,
            summary.tpot_p99 * 1e3,
            summary.latency_mean,
            summary.within_slo * 100.0,
            summary.requests,
            summary.failures,
            health.generator_late_p99 * 1e3,
            health.servers_late_p99 * 1e3,
            health.cpu_busy * 100.0,
        );
    }
}
