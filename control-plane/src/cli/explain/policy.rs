use serde_json::json;

use crate::config::Policy;
use crate::run::Recorded;

use super::acknowledgement::said;
use super::zone::Zoned;
use super::{Decided, place};

/// Why a backend had its share by a policy that goes by no prediction.
pub(super) fn json(decided: &Decided<'_>, recorded: &Recorded) -> serde_json::Value {
    let Decided { backend, row, told, zoned, .. } = decided;
    let part = recorded.part(*backend);
    json!({
        "backend": backend,
        "model": row.model,
        "decision": row.id,
        "at": row.at,
        "policy": recorded.policy,
        "group": part.as_ref().map(|part| part.group),
        "group_weight": part.as_ref().map(|part| part.weight),
        "of_weight": part.as_ref().map(|part| part.of),
        "acknowledgement": told,
        "group_members": part.as_ref().map(|part| part.members),
        "endpoint_weight": part.as_ref().and_then(|part| part.own_weight),
        "part": recorded.expected(*backend),
        "reason": recorded.reason(*backend),
        "zone": zoned.as_ref().map(Zoned::as_json),
    })
}

pub(super) fn text(decided: &Decided<'_>, recorded: &Recorded) -> String {
    let Decided { backend, row, told, zoned, now, .. } = decided;
    let Some(part) = recorded.part(*backend) else { return String::new() };
    let mut lines = vec![
        decided.heading(),
        format!("policy {}: read from the record, and not made again", recorded.policy_name()),
        place(&part),
        // It is told on every rung.
        said(row, *told, *now),
    ];
    if recorded.policy == Policy::Static {
        lines.push(
            "Envoys have the capacity shares, which are taken anew when one is off by more than a tenth"
                .to_owned(),
        );
    }
    lines.extend(zoned.as_ref().map(|zoned| zoned.as_text(*now)));
    let Some(expected) = recorded.expected(*backend) else {
        lines.push("it takes no new requests: it drains, or looks dead".to_owned());
        return lines.join("\n");
    };
    let reason = recorded.reason(*backend).unwrap_or("its share is about what it was before this decision");
    lines.push(format!("{reason}\n"));
    lines.push(format!("{:<58}{:>10.3} %", "its part of the requests, by these weights", 100.0 * expected));
    if let Some(weight) = part.own_weight {
        lines.push(format!("{:<58}{weight:>10}", "its weight in the group"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use chrono::DateTime;
    use uuid::Uuid;

    use crate::run::{Explanation, explain};
    use crate::store::DecisionRow;

    use super::*;

    /// Two backends that take requests, and one that drains; the share of the second hardly changed.
    fn decision() -> DecisionRow {
        DecisionRow {
            id: Uuid::nil(),
            at: DateTime::UNIX_EPOCH,
            kind: "membership".to_owned(),
            model: "chat".to_owned(),
            pool: None,
            summary: String::new(),
            inputs: json!({
                "policy": "least_response_time",
                "rung": "shadow",
                "groups": [
                    { "name": "a", "pool": "a", "weight": 7500, "members": { "10.0.0.1:8000": false },
                      "endpoint_weights": { "10.0.0.1:8000": 75_000 } },
                    { "name": "b", "pool": "b", "weight": 2500,
                      "members": { "10.0.0.2:8000": false, "10.0.0.3:8000": true },
                      "endpoint_weights": { "10.0.0.2:8000": 25_000 } },
                ],
            }),
            changes: json!([
                { "target": "10.0.0.1:8000", "from": 0.5, "to": 0.75, "reason": "answers took 0.40 s of late" },
            ]),
        }
    }

    fn of(number: u8) -> (String, serde_json::Value) {
        let row = decision();
        let Ok(Explanation::Recorded(recorded)) = explain(&row) else { panic!("it is not read") };
        let backend = SocketAddr::from(([10, 0, 0, number], 8000));
        let now = DateTime::UNIX_EPOCH + chrono::TimeDelta::hours(1);
        let decided = Decided { backend, row: &row, told: None, not_in_force: None, zoned: None, now };
        (text(&decided, &recorded), json(&decided, &recorded))
    }

    #[test]
    fn a_policy_without_predictions_is_told_from_its_record() {
        let (first, line) = of(1);
        assert!(
            first.contains("policy least_response_time: read from the record, and not made again"),
            "{first}"
        );
        assert!(first.contains("group a: weight 7500 of 10000, 1 backends take requests"), "{first}");
        assert!(first.contains("answers took 0.40 s of late") && first.contains("75.000 %"), "{first}");
        assert!(!first.contains("shadow"), "its weights are told on every rung: {first}");
        assert_eq!(line["policy"], "least_response_time");
        assert_eq!((&line["part"], &line["endpoint_weight"]), (&json!(0.75), &json!(75_000)));
        assert_eq!(line["reason"], "answers took 0.40 s of late");
        let (second, line) = of(2);
        assert!(second.contains("about what it was before") && second.contains("25.000 %"), "{second}");
        assert_eq!(line["reason"], json!(null));
        let (third, line) = of(3);
        assert!(third.contains("it takes no new requests"), "{third}");
        assert_eq!((&line["group"], &line["part"]), (&json!("b"), &json!(null)));
    }
}
