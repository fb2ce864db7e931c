use std::net::SocketAddr;

use serde_json::json;

use crate::run::explain_spare;
use crate::store::DecisionRow;

/// What is said of a spare backend, by the decisions about spare ones that were in force; none of one that is not.
pub(super) fn explained(backend: SocketAddr, rows: &[DecisionRow], as_lines: bool) -> Option<String> {
    let (row, spare) = rows.iter().find_map(|row| Some((row, explain_spare(row, backend)?)))?;
    if as_lines {
        let line = json!({
            "backend": backend,
            "model": row.model,
            "decision": row.id,
            "at": row.at,
            "spare_pool": spare.pool,
            "spare_part": spare.part,
            "reason": spare.reason,
        });
        return Some(line.to_string());
    }
    let takes = if spare.part > 0.0 {
        format!("spare backends take {:.0} % of the requests", 100.0 * spare.part)
    } else {
        "spare backends take no requests while another backend can".to_owned()
    };
    let reason = spare.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Some(format!(
        "{backend}, model {}: a spare of pool {}, which has no share of its own\n{takes}, by decision {} of {}{reason}",
        row.model,
        spare.pool,
        row.id,
        row.at.to_rfc3339()
    ))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;

    fn decision(others: usize, before: f64, reason: Option<&str>) -> DecisionRow {
        let change = reason.map(|reason| json!({ "target": "spare backends", "reason": reason }));
        DecisionRow {
            id: Uuid::nil(),
            at: DateTime::UNIX_EPOCH,
            kind: "membership".to_owned(),
            model: "chat".to_owned(),
            pool: None,
            summary: String::new(),
            inputs: json!({
                "part": "spare",
                "groups": [{ "name": "far", "pool": "far", "weight": 10_000, "members": { "10.0.0.9:8000": false } }],
                "relief": {
                    "input": {
                        "spare": 1,
                        "others": others,
                        "members": 3,
                        "capacity_rps": null,
                        "target_utilisation": 0.7,
                        "offered_rps": 10.0,
                    },
                    "previous": { "part": before, "usual": 3.0 },
                },
            }),
            changes: change.into_iter().collect(),
        }
    }

    #[test]
    fn a_spare_backend_is_said_to_be_one_with_what_they_take() {
        let spare = SocketAddr::from(([10, 0, 0, 9], 8000));
        let said = |row: DecisionRow| explained(spare, &[row], false).unwrap();
        let stands_by = said(decision(3, 0.0, None));
        assert!(stands_by.contains("a spare of pool far, which has no share of its own"), "{stands_by}");
        assert!(stands_by.contains("take no requests while another backend can, by decision"), "{stands_by}");
        let takes = said(decision(1, 1.0, Some("1 of 3 others are back")));
        assert!(takes.contains("spare backends take 90 % of the requests, by decision"), "{takes}");
        assert!(takes.ends_with(": 1 of 3 others are back"), "{takes}");
        let line = explained(spare, &[decision(0, 0.0, None)], true).unwrap();
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["spare_pool"], &line["spare_part"]), (&json!("far"), &json!(1.0)));
        let other = SocketAddr::from(([10, 0, 0, 1], 8000));
        assert_eq!(explained(other, &[decision(3, 0.0, None)], false), None);
    }
}
