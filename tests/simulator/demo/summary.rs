//! The end of the demo in numbers.

use std::fmt::Write as _;

use super::{
    evidence::best_rise,
    outcome::{ModelForecasts, Outcome},
};

/// Most rows of a table of forecasts.
const MAX_ROWS: usize = 12;

/// Returns the summary as lines to print.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = format!("\nSummary of {:.0} s\n", outcome.seconds);
    for (label, lines) in sections(outcome) {
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {label:<14}  {line}");
        }
    }
    for model in &outcome.forecasts {
        text.push_str(&table(model));
    }
    text
}

fn sections(outcome: &Outcome) -> Vec<(&'static str, Vec<String>)> {
    let state = &outcome.observations.last;
    let totals = &state.totals;
    let ready: Vec<String> =
        state.pools.iter().map(|pool| format!("{} {}", pool.replicas.ready, pool.name)).collect();
    vec![
        ("Envoys", vec![format!("{}/{} in sync", outcome.proxies_in_sync(), outcome.proxies_expected)]),
        ("Requests", requests(outcome)),
        ("TTFT", outcome.load.iter().map(|(model, load)| ttft(model, load)).collect()),
        (
            "Telemetry",
            vec![format!(
                "{} rows in Postgres, {} dropped, {} scrapes failed",
                totals.telemetry_rows, totals.telemetry_dropped, totals.scrapes_failed
            )],
        ),
        ("Forecasts", forecasts(outcome)),
        ("Decisions", vec![format!("{}, {} weight changes", totals.decisions, totals.weight_changes)]),
        ("Slowed server", slowed(outcome)),
        ("Webhooks", webhooks(outcome)),
        (
            "Servers",
            vec![
                format!(
                    "{} added, {} of them in use, {} removed",
                    outcome.scaling.added.len(),
                    outcome.observations.in_use.len(),
                    outcome.scaling.removed
                ),
                format!("ready: {}", ready.join(", ")),
            ],
        ),
    ]
}

fn requests(outcome: &Outcome) -> Vec<String> {
    let failures = outcome.failures();
    let mut first =
        format!("{} sent, {} answered, {} failed", outcome.sent(), outcome.completed(), failures.total());
    if failures.total() > 0 {
        let _ = write!(first, " ({failures})");
    }
    let mut lines = vec![first];
    if outcome.unfinished() + outcome.over_the_cap() > 0 {
        lines.push(format!(
            "{} unfinished at the end, {} not sent: too many in flight",
            outcome.unfinished(),
            outcome.over_the_cap()
        ));
    }
    lines
}

fn ttft(model: &str, load: &crate::player::ModelStatistics) -> String {
    let (Some(p50), Some(p95)) = (load.ttft.quantile_seconds(0.5), load.ttft.quantile_seconds(0.95)) else {
        return format!("{model}: no first token");
    };
    format!("{model}: p50 {p50:.2} s, p95 {p95:.2} s ({} requests)", load.ttft.count())
}

fn forecasts(outcome: &Outcome) -> Vec<String> {
    let state = &outcome.observations.last;
    let mut lines = vec![format!("{} issued", state.totals.forecasts)];
    for model in &state.models {
        let Some(forecast) = &model.forecast else { continue };
        let error = forecast
            .error_ratio
            .map_or_else(String::new, |ratio| format!(", recent error {:.0} % of the demand", ratio * 100.0));
        lines.push(format!("{} by {}{error}", model.name, forecast.expert));
    }
    lines
}

fn slowed(outcome: &Outcome) -> Vec<String> {
    let Some(slowed) = &outcome.observations.slowed else { return vec!["none".to_owned()] };
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let capacity = slowed
        .capacity_share
        .map_or_else(String::new, |share| format!(" (by capacity alone {})", percent(share)));
    let halved = slowed
        .halved_after
        .map_or_else(|| "never halved".to_owned(), |after| format!("halved within {after:.0} s"));
    let mut lines = vec![format!(
        "{}: share {} before, {} at the lowest{capacity}, {halved}, {} at the end",
        slowed.address,
        percent(slowed.before),
        percent(slowed.lowest),
        percent(slowed.latest)
    )];
    let traffic = &outcome.slowed_traffic;
    if let (Some(before), Some(at_the_end)) = (traffic.before, traffic.at_the_end) {
        lines.push(format!(
            "counted at the servers: {} of the requests in the 10 s before, {} in the last 10 s of slowness",
            percent(before),
            percent(at_the_end)
        ));
    }
    lines
}

fn webhooks(outcome: &Outcome) -> Vec<String> {
    let counts = &outcome.webhooks;
    let totals = &outcome.observations.last.totals;
    let mut lines = vec![format!(
        "{} verified, {} refused; clairvoy: {} delivered, {} failed",
        counts.accepted + counts.repeated + counts.expired + counts.overtaken,
        outcome.webhooks_refused(),
        totals.webhooks_delivered,
        totals.webhooks_failed
    )];
    if let Some(plan) = outcome.scaling.ahead_of_demand.first() {
        lines.push(format!(
            "ahead of demand: {} to {} when {} were needed, as {} would be in {:.0} s",
            plan.pool, plan.replicas, plan.needed_now, plan.needed_forecast, plan.horizon_seconds
        ));
    }
    lines
}

fn table(model: &ModelForecasts) -> String {
    let mut text = format!(
        "\n  {}: forecasts as issued {:.0} s ahead, beside what came (requests/s)\n",
        model.model, model.lead_seconds
    );
    if model.rows.is_empty() {
        text.push_str("    no whole step yet\n");
        return text;
    }
    text.push_str("      step   issued at   seen then     q50     q90    came\n");
    for row in &model.rows[model.rows.len().saturating_sub(MAX_ROWS)..] {
        let seen = row.last_seen_rps.map_or_else(|| "-".to_owned(), |rps| format!("{rps:.1}"));
        let _ = writeln!(
            text,
            "  {:>6.0} s  {:>8.0} s  {seen:>10}  {:>6.1}  {:>6.1}  {:>6.1}",
            row.step_at, row.issued_at, row.q50_rps, row.q90_rps, row.actual_rps
        );
    }
    match best_rise(&model.rows) {
        Some((row, from)) => {
            let _ = writeln!(
                text,
                "    It rose before the demand did: at {:.0} s it said {:.1} for {:.0} s, when {from:.1} had been seen; {:.1} came.",
                row.issued_at, row.q50_rps, row.step_at, row.actual_rps
            );
        }
        None => text.push_str("    No rise was foreseen.\n"),
    }
    text
}
