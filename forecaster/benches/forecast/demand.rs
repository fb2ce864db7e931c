//! The demand of a fortnight, and that of a single day.

use std::fmt::Write as _;

use anyhow::Result;
use clairvoy_forecaster::{
    Backtest, DemandConfig, Grid, Issue, Reference, Score, Series, backtest, score, score_reference,
};

use crate::data::{self, STEP_SECONDS};
use crate::goals::{Goal, Goals};
use crate::{machine, replicas};

/// Seconds that the whole backtest may take on one core.
const SECONDS_GOAL: f64 = 60.0;

/// What is aimed at, at one horizon.
struct Target {
    horizon_steps: u32,
    name: &'static str,
    cwape: f64,
    mean_pinball: f64,
    coverage_error: f64,
}

const TARGETS: [Target; 5] = [
    Target { horizon_steps: 1, name: "10 min", cwape: 0.120, mean_pinball: 0.033, coverage_error: 0.016 },
    Target { horizon_steps: 3, name: "30 min", cwape: 0.160, mean_pinball: 0.047, coverage_error: 0.016 },
    Target { horizon_steps: 6, name: "1 h", cwape: 0.200, mean_pinball: 0.069, coverage_error: 0.016 },
    Target { horizon_steps: 36, name: "6 h", cwape: 0.300, mean_pinball: 0.100, coverage_error: 0.028 },
    Target { horizon_steps: 144, name: "24 h", cwape: 0.335, mean_pinball: 0.115, coverage_error: 0.046 },
];

const COVERAGE_90: Goal = Goal::Within(0.88, 0.92);
const COVERAGE_95: Goal = Goal::Within(0.935, 0.965);

/// Returns the grid and the horizons of all demand that is judged here.
pub(crate) fn config() -> DemandConfig {
    let grid = Grid { step_seconds: STEP_SECONDS, season_steps: 144 };
    DemandConfig { grid, horizons: vec![1, 2, 3, 6, 36, 144] }
}

/// Runs the backtest of the fortnight and returns its tables.
pub(crate) fn fortnight(series: &[Series], goals: &mut Goals) -> Result<String> {
    let how = Backtest { config: config(), train_steps: 1008, every_steps: 7 };
    let before = machine::cpu_seconds();
    let issues = run(series, &how)?;
    let seconds = machine::cpu_seconds() - before;
    let ours = score(series, &how, &issues);
    let last = score_reference(series, &how, &issues, Reference::LastValue);
    let seasonal = score_reference(series, &how, &issues, Reference::SeasonalNaive);
    let peers = data::peers()?;

    let mut text = format!("{FORTNIGHT}\n");
    for target in &TARGETS {
        let at = |scores: &[Score]| {
            scores.iter().find(|score| score.horizon_steps == target.horizon_steps).cloned()
        };
        let Some(ours) = at(&ours) else { continue };
        write!(text, "#### {} ahead\n\n{HEAD}{}", target.name, own_rows(&ours, target, goals))?;
        for (name, scores) in [("last value", &last), ("seasonal naive (day)", &seasonal)] {
            if let Some(score) = at(scores) {
                let pinball = score.mean_pinball();
                writeln!(text, "| {name}, computed here | {:.4} | {pinball:.4} | – | – | – |", score.cwape)?;
            }
        }
        let horizon_s = target.horizon_steps * STEP_SECONDS;
        for peer in peers.iter().filter(|peer| peer.horizon_s == horizon_s) {
            writeln!(
                text,
                "| {} | {:.4} | {:.4} | {:.4} | {:.4} | {:.4} |",
                peer.forecaster, peer.cwape, peer.mean_pinball, peer.cov90, peer.cov95, peer.cov95_err
            )?;
        }
        text.push('\n');
    }
    text += &replicas::table(series, &how, &issues, goals)?;
    let goal = Goal::AtMost(SECONDS_GOAL);
    let outcome = goals.check("seconds of the backtest", goal, seconds);
    write!(
        text,
        "\n#### Time of the backtest\n\n{} series at {} origins each, with every step observed, every horizon forecast and a fit of \
         all regressions once a day, on one core: {seconds:.1} s of CPU time ({goal}: {outcome}).\n",
        series.len(),
        series.first().map_or(0, |series| series.values.len().saturating_sub(how.train_steps)),
    )?;
    Ok(text)
}

/// Our rows of a table: the figures, the goals, and whether they are met.
fn own_rows(score: &Score, target: &Target, goals: &mut Goals) -> String {
    let [held_90, held_95, _] = score.coverage;
    let figures = [
        ("WAPE", score.cwape, Goal::AtMost(target.cwape)),
        ("pinball", score.mean_pinball(), Goal::AtMost(target.mean_pinball)),
        ("90 % bound", held_90, COVERAGE_90),
        ("95 % bound", held_95, COVERAGE_95),
        ("95 % bound by series", score.coverage_error, Goal::AtMost(target.coverage_error)),
    ];
    let measured = figures.map(|(_, measured, _)| format!("**{measured:.4}**")).join(" | ");
    let wanted = figures.map(|(_, _, goal)| goal.to_string()).join(" | ");
    let outcomes = figures
        .map(|(what, measured, goal)| goals.check(&format!("{} ahead, {what}", target.name), goal, measured));
    format!(
        "| **Clairvoy**, computed here | {measured} |\n| goal | {wanted} |\n| | {} |\n",
        outcomes.join(" | ")
    )
}

/// Runs the backtest of the single day and returns its table.
pub(crate) fn one_day(goals: &mut Goals) -> Result<String> {
    let series = data::demand("demand_1day_10min.csv")?;
    let how = Backtest { config: config(), train_steps: 48, every_steps: 1 };
    let issues = run(&series, &how)?;
    let last = score_reference(&series, &how, &issues, Reference::LastValue);
    let mut text = format!("{ONE_DAY}\n");
    for (ours, last) in score(&series, &how, &issues).iter().zip(&last) {
        let minutes = ours.horizon_steps * STEP_SECONDS / 60;
        let what = format!("one day, {minutes} min ahead, WAPE");
        let outcome = goals.check(&what, Goal::Below(last.wape), ours.wape);
        let held = ours.coverage[0];
        writeln!(
            text,
            "| {minutes} min | **{:.4}** | {:.4} | {outcome} | {held:.4} |",
            ours.wape, last.wape
        )?;
    }
    Ok(text)
}

fn run(series: &[Series], how: &Backtest) -> Result<Vec<Issue>> {
    let issues = backtest(series, how, |done, all| {
        if done.is_multiple_of(144) {
            eprintln!("demand, step {done} of {all}");
        }
    })?;
    Ok(issues)
}

const FORTNIGHT: &str = "\
### Demand

24 series of two weeks in steps of ten minutes; the first week is known, and every 70 minutes of the second each horizon is
forecast. WAPE: absolute error of the median per unit of demand, of each series at most 1 (what a forecast of zero gets).
Pinball: mean of the losses at 0.5, 0.9, 0.95 and 0.99, per unit of demand. Bounds: the share of outcomes that they held, and
how far that of the 95 % bound is off 0.95 for a series. All are means over the series. The last value and the seasonal naive
that are computed here have no bounds: each of their quantiles is the same value. Rows without remark were recorded elsewhere.
";

const HEAD: &str = "\
| forecaster | WAPE | pinball | 90 % bound | 95 % bound | 95 % bound, off by |
|---|---|---|---|---|---|
";

const ONE_DAY: &str = "\
### Demand with little history

One series of one day in steps of ten minutes; the first eight hours are known, and each further step is an origin. The goal is
to be below the last value.

| ahead | WAPE | last value | | 90 % bound |
|---|---|---|---|---|";
