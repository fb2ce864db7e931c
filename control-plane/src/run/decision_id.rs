use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::DecisionRow;

/// The id of a decision: a UUID of version 8 from what it says, so that the same inputs give the same id wherever they are
/// decided on. 48 bits are the milliseconds of its time and 12 its number at that time, so ids sort as decisions were
/// made; the other 62 are of SHA-256 over all the rest.
pub(super) fn decision_id(row: &DecisionRow, number: u16) -> Uuid {
    let content = json!([
        row.at.timestamp_micros(),
        row.kind,
        row.model,
        row.pool,
        row.summary,
        row.inputs,
        row.changes,
    ]);
    let digest = Sha256::digest(content.to_string());
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&row.at.timestamp_millis().to_be_bytes()[2..]);
    bytes[6..8].copy_from_slice(&(number & 0xfff | 0x8000).to_be_bytes());
    bytes[8..].copy_from_slice(&digest[..8]);
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Uuid::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn ids_follow_from_the_content_and_sort_by_time() {
        let row = |second: i64, summary: &str| DecisionRow {
            id: Uuid::nil(),
            at: DateTime::from_timestamp(second, 0).unwrap(),
            kind: "weights".to_owned(),
            model: "chat".to_owned(),
            pool: None,
            summary: summary.to_owned(),
            inputs: json!({ "demand_rps": 0.1 }),
            changes: json!([]),
        };
        let id = decision_id(&row(1, "a"), 0);
        assert_eq!(id, decision_id(&row(1, "a"), 0));
        assert_ne!(id, decision_id(&row(1, "b"), 0));
        assert!(
            id < decision_id(&row(1, "a"), 1) && decision_id(&row(1, "a"), 1) < decision_id(&row(2, "a"), 0)
        );
        assert_eq!(id.get_version_num(), 8);
    }
}
