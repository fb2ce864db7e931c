use anyhow::Context as _;
use serde_json::json;

use crate::decide::ShedDecision;
use crate::run::explain_shed;
use crate::store::DecisionRow;

/// Why requests of a model were refused, or not, by the decision that was in force.
///
/// # Errors
/// The decision cannot be made again.
pub(super) fn explained(row: &DecisionRow, as_lines: bool) -> anyhow::Result<String> {
    let decision = explain_shed(row).map_err(anyhow::Error::msg).context("cannot be made again")?;
    Ok(if as_lines { json(row, &decision).to_string() } else { text(row, &decision) })
}

fn json(row: &DecisionRow, decision: &ShedDecision) -> serde_json::Value {
    json!({
        "model": row.model,
        "decision": row.id,
        "at": row.at,
        "rung": row.rung(),
        "batch": decision.batch,
        "interactive": decision.interactive,
        "reason": decision.reason,
        "terms": decision.terms,
    })
}

fn text(row: &DecisionRow, decision: &ShedDecision) -> String {
    let terms = &decision.terms;
    let mut lines = vec![
        format!("model {}: decision {} of {}", row.model, row.id, row.at.to_rfc3339()),
        format!("{}\n", decision.reason),
    ];
    let rows = [
        ("requests that come, refused ones too", terms.offered_rps, "requests/s"),
        ("those of them that can wait", terms.offered_batch_rps, "requests/s"),
        ("requests that come when this has taken effect", terms.ahead_rps, "requests/s"),
        ("+ what serves those that wait at the backends", terms.waiting_rps, "requests/s"),
        ("what the backends serve with full batches", terms.capacity_rps, "requests/s"),
        ("= load", 100.0 * terms.load, "%"),
        ("what chance makes of it", 100.0 * terms.noise, "%"),
        ("requests that should be let in", terms.aim_rps, "requests/s"),
        ("requests above that", terms.excess_rps, "requests/s"),
        ("part of batch that makes up for it", 100.0 * terms.wanted_batch, "%"),
        ("part of interactive, for what is left over", 100.0 * terms.wanted_interactive, "%"),
        ("part of batch that is refused, after the ramp", 100.0 * decision.batch, "%"),
        ("part of interactive", 100.0 * decision.interactive, "%"),
    ];
    lines.extend(rows.map(|(what, value, unit)| format!("{what:<58}{value:>10.3} {unit}")));
    let said = |is_so| if is_so { "yes" } else { "no" };
    let facts = [
        ("backends show it: half full, or one waits for each", terms.shows),
        ("refusals tell how many of batch come", terms.is_told),
    ];
    lines.extend(facts.map(|(what, is_so)| format!("{what:<58}{:>10}", said(is_so))));
    lines.join("\n")
}
