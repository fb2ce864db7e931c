//! Replicas that policies would have had ready, with our forecasts and with those of peers.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use clairvoy_forecaster::{Backtest, Issue, Policy, ReplicaScore, Series, score_replicas};

use crate::data;
use crate::goals::{Goal, Goals};

/// Minutes that a replica takes to start.
const COLD_MINUTES: usize = 5;

/// What one missing replica-minute costs, in replica-minutes too many.
const UNDER_COST: f64 = 10.0;

/// The level of the hybrid policy that has goals, and these, as parts of the needed replica-minutes.
const GOAL_LEVEL: f64 = 0.9;
const UNDER_GOAL: Goal = Goal::AtMost(0.012);
const OVER_GOAL: Goal = Goal::AtMost(0.219);

/// Returns the table.
pub(crate) fn table(
    series: &[Series],
    how: &Backtest,
    issues: &[Issue],
    goals: &mut Goals,
) -> Result<String> {
    let judge = |policy| {
        let score = score_replicas(series, how, issues, policy, COLD_MINUTES);
        score.context("not every origin has a forecast")
    };
    let mut text = format!("{HEAD}\n");
    for level in [0.9, 0.95] {
        let ReplicaScore { under, over, .. } = judge(Policy::Forecast(level))?;
        row(&mut text, "**Clairvoy**, computed here", "predictive", Some(level), under, over)?;
    }
    for level in [0.5, GOAL_LEVEL, 0.95] {
        let ReplicaScore { under, over, .. } = judge(Policy::Hybrid(level))?;
        row(&mut text, "**Clairvoy**, computed here", "hybrid", Some(level), under, over)?;
        if level == GOAL_LEVEL {
            let met_under = goals.check("replicas, under", UNDER_GOAL, under);
            let met_over = goals.check("replicas, over", OVER_GOAL, over);
            writeln!(text, "| goal | hybrid | {level} | {UNDER_GOAL} | {OVER_GOAL} | |")?;
            writeln!(text, "| | | | {met_under} | {met_over} | |")?;
        }
    }
    let ReplicaScore { under, over, .. } = judge(Policy::Reactive)?;
    row(&mut text, "no forecast, computed here", "reactive", None, under, over)?;
    for peer in data::peers_replicas()? {
        row(&mut text, &peer.forecaster, &peer.policy, peer.quantile, peer.under, peer.over)?;
    }
    Ok(text)
}

fn row(text: &mut String, who: &str, policy: &str, level: Option<f64>, under: f64, over: f64) -> Result<()> {
    let level = level.map(|level| level.to_string()).unwrap_or_default();
    let cost = over + UNDER_COST * under;
    Ok(writeln!(text, "| {who} | {policy} | {level} | {under:.4} | {over:.4} | {cost:.3} |")?)
}

const HEAD: &str = "\
#### Replicas

What an autoscaler would have had ready in the second week, minute by minute, when a start takes 5 minutes and a replica serves a
tenth of the mean rate of the first week. Predictive: what the higher forecast of the next two steps needs; hybrid: that, or what
the rate of the last minute needs; reactive: an HPA at 80 % utilisation. Under and over: replica-minutes that were missing
or not needed, in parts of those needed; cost: over + 10 × under. Rows without remark were recorded elsewhere.

| forecaster | policy | level | under | over | cost |
|---|---|---|---|---|---|";
