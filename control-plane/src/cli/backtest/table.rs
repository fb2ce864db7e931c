use std::fmt::Write as _;

use clairvoy_forecaster::{
    Backtest, Issue, Policy, Reference, Score, score, score_reference, score_replicas,
};

use super::series::Table;

const POLICIES: [(&str, Policy); 5] = [
    ("reactive, 80 % of the last minute", Policy::Reactive),
    ("forecast, median", Policy::Forecast(0.5)),
    ("forecast, 0.9 bound", Policy::Forecast(0.9)),
    ("hybrid, 0.9 bound", Policy::Hybrid(0.9)),
    ("hybrid, 0.95 bound", Policy::Hybrid(0.95)),
];

/// Returns the tables as text.
pub(super) fn render(table: &Table, how: &Backtest, issues: &[Issue], cold_minutes: usize) -> String {
    let series = &table.series;
    let rows = [
        ("clairvoy", score(series, how, issues)),
        ("last value", score_reference(series, how, issues, Reference::LastValue)),
        ("seasonal naive", score_reference(series, how, issues, Reference::SeasonalNaive)),
    ];
    let mut text = format!(
        "{} series of {} steps of {} s; {} steps known before the first forecast, every {} steps scored\n\n",
        series.len(),
        table.steps(),
        table.step_seconds,
        how.train_steps,
        how.every_steps
    );
    text +=
        "horizon     forecaster      series    WAPE   cWAPE  pinball   <=q90   <=q95   <=q99  |q95 - 0.95|\n";
    let Some((_, ours)) = rows.first() else { return text };
    for place in 0..ours.len() {
        for (name, scores) in &rows {
            let Some(score) = scores.get(place) else { continue };
            let horizon = if *name == "clairvoy" { horizon(table, score) } else { String::new() };
            line(&mut text, &horizon, name, score);
        }
    }
    text += "\nWAPE: absolute error of the median per unit of demand, mean over the series; cWAPE: each series at most 1.\n\
             pinball: mean loss of the median and the three bounds, per unit of demand. <=q: share of outcomes at or\n\
             below a bound; |q95 - 0.95|: how far from 0.95 that is, by series.\n";
    let policies: Vec<_> = POLICIES
        .iter()
        .filter_map(|(name, policy)| {
            Some((name, score_replicas(series, how, issues, *policy, cold_minutes)?))
        })
        .collect();
    if !policies.is_empty() {
        let _ = write!(
            text,
            "\nReplicas, which take {cold_minutes} min to start and ten of which serve the mean of the training steps;\n\
             in parts of the replica-minutes that were needed\n\n{:<36}  under    over   minutes short\n",
            "policy"
        );
        for (name, score) in policies {
            let _ = writeln!(text, "{name:<36}  {:.3}   {:.3}   {:.3}", score.under, score.over, score.short);
        }
    }
    text
}

fn horizon(table: &Table, score: &Score) -> String {
    let seconds = u64::from(score.horizon_steps) * u64::from(table.step_seconds);
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

fn line(text: &mut String, horizon: &str, name: &str, score: &Score) {
    let [q90, q95, q99] = score.coverage;
    let _ = writeln!(
        text,
        "{horizon:<11} {name:<15} {:>6}  {:>6.3}  {:>6.3}  {:>7.4}  {q90:>6.3}  {q95:>6.3}  {q99:>6.3}  {:>6.3}",
        score.series,
        score.wape,
        score.cwape,
        score.mean_pinball(),
        score.coverage_error
    );
}
