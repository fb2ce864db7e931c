use anyhow::Context as _;
use serde_json::json;

use crate::decide::{CanaryDecision, Measure, MeasureTerms};
use crate::run::explain_canary;
use crate::store::DecisionRow;

/// Why the canary of a model stepped back, or goes on again.
///
/// # Errors
/// The decision cannot be made again.
pub(super) fn explained(row: &DecisionRow, as_lines: bool) -> anyhow::Result<String> {
    let decision = explain_canary(row).map_err(anyhow::Error::msg).context("cannot be made again")?;
    Ok(if as_lines { json(row, decision.as_ref()).to_string() } else { text(row, decision.as_ref()) })
}

fn json(row: &DecisionRow, decision: Option<&CanaryDecision>) -> serde_json::Value {
    json!({
        "model": row.model,
        "decision": row.id,
        "at": row.at,
        "summary": row.summary,
        "step_back": decision.and_then(|decision| decision.step_back),
        "terms": decision.map(|decision| &decision.terms),
    })
}

fn text(row: &DecisionRow, decision: Option<&CanaryDecision>) -> String {
    let mut lines = vec![
        format!("model {}: decision {} of {}", row.model, row.id, row.at.to_rfc3339()),
        row.summary.clone(),
    ];
    let terms = decision.map(|decision| decision.terms.as_slice()).unwrap_or_default();
    lines.extend(terms.iter().flat_map(of_measure));
    lines.join("\n")
}

fn of_measure(terms: &MeasureTerms) -> Vec<String> {
    let (what, unit, factor, harm) = match terms.measure {
        Measure::Failures => ("requests that failed", "%", 100.0, "more than of the others, in points"),
        Measure::Late => ("first bytes that came too late", "%", 100.0, "more than of the others, in points"),
        Measure::FirstByte => {
            ("time to the first byte, geometric mean", "s", 1.0, "in parts of that of the others")
        }
    };
    let harm_factor = if terms.measure == Measure::FirstByte { 1.0 } else { 100.0 };
    let over = terms
        .window_seconds
        .map_or_else(|| "too few requests in one part".to_owned(), |seconds| format!("over {seconds} s"));
    let mut lines = vec![format!("\n{what}, {over}")];
    let mut row = |what: &str, value: Option<f64>, unit: &str| {
        lines.extend(value.map(|value| format!("{what:<58}{value:>10.3} {unit}")));
    };
    row("steered", terms.steered.map(|value| factor * value), unit);
    row("unsteered", terms.unsteered.map(|value| factor * value), unit);
    row("requests, steered", Some(terms.steered_requests as f64), "");
    row("requests, unsteered", Some(terms.unsteered_requests as f64), "");
    row(harm, terms.harm.map(|value| harm_factor * value), "");
    row("least that counts", Some(harm_factor * terms.least_harm), "");
    row("evidence that it is no chance; 1 is enough", Some(terms.evidence), "");
    lines
}
