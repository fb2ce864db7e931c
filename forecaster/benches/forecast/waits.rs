//! The time to first token, as a router and as a control plane would have forecast it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use clairvoy_forecaster::{
    WaitBacktest, WaitConfig, WaitRow, WaitScore, WaitView, backtest_waits, last_observed_waits,
    little_waits, score_waits,
};

use crate::goals::{Goal, Goals};

/// An age of the state, in seconds, and what a router is to reach with it.
struct Target {
    age_seconds: f64,
    wape: f64,
    spearman: f64,
}

const TARGETS: [Target; 3] = [
    Target { age_seconds: 0.0, wape: 0.048, spearman: 0.99 },
    Target { age_seconds: 1.0, wape: 0.10, spearman: 0.97 },
    Target { age_seconds: 5.0, wape: 0.22, spearman: 0.94 },
];

const COVERAGE: Goal = Goal::Within(0.88, 0.92);

/// Runs the backtests and returns their tables.
pub(crate) fn tables(servers: &[Vec<WaitRow>], goals: &mut Goals) -> Result<String> {
    let mut text = format!("{INTRODUCTION}\n#### As a router\n\n{HEAD}\n");
    for target in &TARGETS {
        let age = target.age_seconds;
        let judged = Judged::of(servers, WaitView::Router, age)?;
        judged.row(&mut text, age)?;
        let WaitScore { wape, spearman, coverage } = judged.ours;
        let mut check = |what, goal, measured| {
            let outcome = goals.check(&format!("router, {what}, state {age} s old"), goal, measured);
            format!("{goal}: {outcome}")
        };
        let wape = check("WAPE", Goal::AtMost(target.wape), wape);
        let spearman = check("Spearman", Goal::AtLeast(target.spearman), spearman);
        let coverage = check("90 % bound", COVERAGE, coverage);
        writeln!(text, "| goal | {wape} | {spearman} | {coverage} | | | | |")?;
    }
    write!(text, "\n#### As a control plane\n\n{HEAD}\n")?;
    for Target { age_seconds: age, .. } in TARGETS {
        let judged = Judged::of(servers, WaitView::ControlPlane, age)?;
        judged.row(&mut text, age)?;
        let goal = Goal::Below(judged.last.wape.min(judged.little.wape));
        let what = format!("control plane, WAPE, state {age} s old");
        let outcome = goals.check(&what, goal, judged.ours.wape);
        writeln!(text, "| goal | {goal}: {outcome} | | | | | | |")?;
    }
    Ok(text)
}

/// Means over the servers.
struct Judged {
    ours: WaitScore,
    last: WaitScore,
    little: WaitScore,
}

impl Judged {
    fn of(servers: &[Vec<WaitRow>], view: WaitView, age_seconds: f64) -> Result<Self> {
        eprintln!("waits, {view:?}, state {age_seconds} s old");
        let backtest = WaitBacktest { view, age_seconds, config: WaitConfig::default() };
        let ours = |rows: &[WaitRow]| backtest_waits(rows, &backtest).iter().map(Into::into).collect();
        let alone = |said: Vec<f64>| said.into_iter().map(|median| (median, median)).collect();
        Ok(Self {
            ours: mean(servers, ours)?,
            last: mean(servers, |rows| alone(last_observed_waits(rows)))?,
            little: mean(servers, |rows| alone(little_waits(rows, age_seconds)))?,
        })
    }

    fn row(&self, text: &mut String, age: f64) -> Result<()> {
        let Self { ours, last, little } = self;
        let WaitScore { wape, spearman, coverage } = ours;
        write!(text, "| {age} s | **{wape:.4}** | **{spearman:.4}** | **{coverage:.4}** ")?;
        for WaitScore { wape, spearman, .. } in [last, little] {
            write!(text, "| {wape:.4} | {spearman:.4} ")?;
        }
        Ok(writeln!(text, "|")?)
    }
}

fn mean(servers: &[Vec<WaitRow>], said: impl Fn(&[WaitRow]) -> Vec<(f64, f64)>) -> Result<WaitScore> {
    let scores = servers.iter().map(|rows| score_waits(rows, &said(rows))).collect::<Option<Vec<_>>>();
    scores.and_then(|scores| WaitScore::mean(&scores)).context("a server without waits")
}

const INTRODUCTION: &str = "\
### Waits

The time to first token of each request at four simulated servers (two speeds, two loads) that replay a public trace, forecast
when it arrives, from a state that is 0, 1 or 5 s old and from the requests that had their first token by then; learned as it
goes, judged on the last three fifths, mean over the servers. A router knows each prompt and what it sent since the state was
taken; a control plane knows the state without prompt tokens. Beside it the last observed time, and the queue over the rate of
first tokens (Little's law). The goal of the control plane is to be below both. All computed here.
";

const HEAD: &str = "\
| state's age | WAPE | Spearman | 90 % bound | last observed: WAPE | Spearman | queue / rate: WAPE | Spearman |
|---|---|---|---|---|---|---|---|";
