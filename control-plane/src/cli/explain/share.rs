use serde_json::json;

use crate::decide::{Clamp, Terms};
use crate::run::Explained;
use crate::store::DecisionRow;

use super::acknowledgement::acknowledged;
use super::zone::Zoned;
use super::{Decided, place};

/// Why a backend had its share by the law.
pub(super) fn json(decided: &Decided<'_>, explained: &Explained) -> serde_json::Value {
    let Decided { backend, row, told, not_in_force, zoned, .. } = decided;
    let part = explained.part(*backend);
    json!({
        "backend": backend,
        "model": row.model,
        "decision": row.id,
        "at": row.at,
        "policy": "predictive",
        "group": part.as_ref().map(|part| part.group),
        "group_weight": part.as_ref().map(|part| part.weight),
        "of_weight": part.as_ref().map(|part| part.of),
        "acknowledgement": told,
        "not_in_force": not_in_force,
        "by_capacity_on": row.by_capacity_on(),
        "steered_percent": row.steered_percent(),
        "group_members": part.as_ref().map(|part| part.members),
        "endpoint_weight": part.as_ref().and_then(|part| part.own_weight),
        "share": part.as_ref().and_then(|part| part.share),
        "level_seconds": explained.level_seconds(),
        "arrivals_rps": explained.model.arrivals_rps,
        "mix": explained.model.mix,
        "law": explained.law,
        "zone": zoned.as_ref().map(Zoned::as_json),
    })
}

pub(super) fn text(decided: &Decided<'_>, explained: &Explained) -> String {
    let Decided { backend, row, told, not_in_force, zoned, now } = decided;
    let Some(part) = explained.part(*backend) else { return String::new() };
    let mut lines = vec![decided.heading(), place(&part), acknowledged(row, *told, *now)];
    lines.extend(not_in_force.as_ref().map(ToString::to_string));
    lines.extend(steered(row));
    lines.extend(zoned.as_ref().map(|zoned| zoned.as_text(*now)));
    let Some(share) = part.share else {
        lines.push("it takes no new requests: it drains, or looks dead".to_owned());
        return lines.join("\n");
    };
    lines.push(format!("{}\n", share.reason));
    lines.extend(
        waterfall(&share.terms, explained)
            .into_iter()
            .map(|(what, value, unit)| format!("{what:<58}{value:>10.3} {unit}")),
    );
    lines.push(String::new());
    let steps = [
        ("share by capacity alone", Some(share.capacity_share)),
        ("share that is wanted", Some(share.terms.wanted_share)),
        ("share after smoothing", Some(share.terms.smoothed_share)),
        ("its part of its group's weight", Some(share.share)),
    ];
    let known = steps.into_iter().filter_map(|(what, share)| Some((what, share?)));
    lines.extend(known.map(|(what, share)| format!("{what:<58}{:>10.3} %", 100.0 * share)));
    if let Some(weight) = part.own_weight {
        lines.push(format!("{:<58}{weight:>10}", "its weight in the group, for the requests it has"));
    }
    lines.join("\n")
}

/// Which part of the requests went by predictions, where that was not all of them.
fn steered(row: &DecisionRow) -> Option<String> {
    match row.steered_percent()? {
        0 => Some("when it was made, all requests of the model went by capacity shares".to_owned()),
        percent if percent < 100 => Some(format!(
            "when it was made, {percent} % of the model's requests went by it, the others by capacity shares"
        )),
        _ => None,
    }
}

/// What adds up to the inflow that was wanted.
fn waterfall<'a>(terms: &Terms, explained: &Explained) -> Vec<(&'a str, f64, &'a str)> {
    let mut rows = vec![("requests that arrive for the model", explained.model.arrivals_rps, "requests/s")];
    if let Some(level) = explained.level_seconds() {
        rows.push(("common level: what one more request costs", level, "s"));
    }
    rows.extend([
        ("it runs slower than usual by the factor", terms.slowdown, ""),
        ("requests/s with a full batch", terms.capacity_rps, "requests/s"),
        ("requests in flight that the level gives it", terms.target_in_flight, ""),
    ]);
    if terms.surcharge_seconds > 0.0 {
        rows.push(("so much higher the level is for it, as it is dear", terms.surcharge_seconds, "s"));
    }
    rows.extend(terms.in_flight.map(|now| ("requests in flight that it has", now, "")));
    rows.extend([
        ("inflow that holds it at the level", terms.holding_rps, "requests/s"),
        ("+ correction towards the level", terms.correction_rps, "requests/s"),
    ]);
    let cap_rps = terms.cap_rps.unwrap_or_default();
    match terms.clamp {
        Some(Clamp::Floor) => rows.push(("raised to the floor", terms.floor_rps, "requests/s")),
        Some(Clamp::Ceiling) => rows.push(("cut to the ceiling", terms.ceiling_rps, "requests/s")),
        Some(Clamp::Sick) => rows.push(("cut to what shows whether it is well again", cap_rps, "requests/s")),
        Some(Clamp::Warming) => {
            rows.push(("cut to what it is given while it warms up", cap_rps, "requests/s"))
        }
        None => {}
    }
    rows.extend([
        ("trust in its telemetry; the rest is its capacity share", terms.trust, ""),
        ("= inflow that is wanted", terms.inflow_rps, "requests/s"),
    ]);
    rows
}
