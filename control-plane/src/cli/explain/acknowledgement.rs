use chrono::{DateTime, TimeDelta, Utc};

use crate::store::{AcknowledgementRow, DecisionRow};

/// What Envoys said is written down within this time.
const KNOWN_AFTER: TimeDelta = TimeDelta::seconds(15);
/// Rungs on which Envoys are not told what is decided.
const UNTOLD: [&str; 2] = ["shadow", "advise"];

/// Whether Envoys took what was decided, in one line.
pub(super) fn acknowledged(
    decision: &DecisionRow,
    told: Option<&AcknowledgementRow>,
    now: DateTime<Utc>,
) -> String {
    if let Some(rung) = decision.rung().filter(|rung| UNTOLD.contains(&rung.as_str())) {
        return format!("not told to Envoys: the model was on the rung {rung}");
    }
    let said = said(decision, told, now);
    match decision.by_capacity_on() {
        Some(rung) => format!(
            "this weight not told to Envoys, but who takes requests, with capacity shares: the model was on the rung {rung}; \
             {said}"
        ),
        None => said,
    }
}

/// The same of a decision that Envoys are told on every rung.
pub(super) fn said(decision: &DecisionRow, told: Option<&AcknowledgementRow>, now: DateTime<Utc>) -> String {
    let Some(told) = told else {
        return if now - decision.at < KNOWN_AFTER {
            "not known yet whether Envoys acknowledged it".to_owned()
        } else {
            "not known whether Envoys acknowledged it".to_owned()
        };
    };
    if told.envoys == 0 {
        return "acknowledged by none: no Envoy was connected".to_owned();
    }
    let plural = if told.envoys == 1 { "" } else { "s" };
    let mut parts = vec![format!("acknowledged by {} of {} Envoy{plural}", told.accepted, told.envoys)];
    match (told.accepted, told.last_seconds) {
        (1, Some(seconds)) => parts.push(format!("{} after it was published", time(seconds))),
        (_, Some(seconds)) => parts.push(format!("the last {} after it was published", time(seconds))),
        (_, None) => {}
    }
    for refusal in &told.refusals {
        parts.push(format!("refused by {}: {}", refusal.node, refusal.reason));
    }
    let others = told.refused - i32::try_from(told.refusals.len()).unwrap_or(i32::MAX);
    if others > 0 {
        parts.push(format!("refused by {others} more"));
    }
    if told.gone > 0 {
        parts.push(format!("{} went before they answered", told.gone));
    }
    let silent = told.envoys - told.accepted - told.refused - told.gone;
    if silent > 0 {
        parts.push(format!("{silent} did not answer within 10 s, or were sent something newer first"));
    }
    parts.join(", ")
}

fn time(seconds: f64) -> String {
    if seconds < 0.1 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.2} s") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use crate::store::Refusal;

    use super::*;

    fn decision(rung: Option<&str>) -> DecisionRow {
        DecisionRow {
            id: Uuid::nil(),
            at: DateTime::UNIX_EPOCH,
            kind: "weights".to_owned(),
            model: "chat".to_owned(),
            pool: None,
            summary: String::new(),
            inputs: json!({ "rung": rung }),
            changes: json!([]),
        }
    }

    fn told(envoys: i32, accepted: i32, seconds: f64) -> AcknowledgementRow {
        AcknowledgementRow {
            decision_id: Uuid::nil(),
            published_at: DateTime::UNIX_EPOCH,
            envoys,
            accepted,
            refused: 0,
            gone: 0,
            first_seconds: (accepted > 0).then_some(0.001),
            last_seconds: (accepted > 0).then_some(seconds),
            refusals: Vec::new(),
        }
    }

    #[test]
    fn it_says_who_took_it_and_who_did_not() {
        let later = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        let said = |told: &AcknowledgementRow| acknowledged(&decision(None), Some(told), later);
        assert_eq!(
            said(&told(4, 4, 0.123)),
            "acknowledged by 4 of 4 Envoys, the last 0.12 s after it was published"
        );
        assert_eq!(said(&told(1, 1, 0.0042)), "acknowledged by 1 of 1 Envoy, 4.2 ms after it was published");
        assert_eq!(said(&told(0, 0, 0.0)), "acknowledged by none: no Envoy was connected");
        let refusal = Refusal { node: "edge-3".to_owned(), reason: "no such field".to_owned() };
        let some = AcknowledgementRow { refused: 3, gone: 1, refusals: vec![refusal], ..told(9, 4, 2.0) };
        assert_eq!(
            said(&some),
            "acknowledged by 4 of 9 Envoys, the last 2.00 s after it was published, refused by edge-3: no such field, \
             refused by 2 more, 1 went before they answered, 1 did not answer within 10 s, or were sent something newer first"
        );
    }

    #[test]
    fn it_says_when_nobody_knows_and_when_nobody_was_told() {
        let soon = DateTime::UNIX_EPOCH + TimeDelta::seconds(3);
        let later = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        assert!(acknowledged(&decision(None), None, soon).starts_with("not known yet"));
        assert!(acknowledged(&decision(None), None, later).starts_with("not known whether"));
        let row = told(1, 1, 0.1);
        assert!(acknowledged(&decision(Some("advise")), Some(&row), later).contains("rung advise"));
        assert!(acknowledged(&decision(Some("canary")), Some(&row), later).contains("1 of 1"));
    }

    #[test]
    fn who_takes_requests_is_told_on_any_rung_and_the_weight_is_not() {
        let later = DateTime::UNIX_EPOCH + TimeDelta::hours(1);
        let joined = DecisionRow {
            kind: "membership".to_owned(),
            inputs: json!({ "by_capacity_on": "shadow" }),
            ..decision(None)
        };
        assert_eq!(
            acknowledged(&joined, Some(&told(1, 1, 0.0042)), later),
            "this weight not told to Envoys, but who takes requests, with capacity shares: the model was on the rung shadow; \
             acknowledged by 1 of 1 Envoy, 4.2 ms after it was published"
        );
        assert!(acknowledged(&joined, None, later).ends_with("; not known whether Envoys acknowledged it"));
    }
}
