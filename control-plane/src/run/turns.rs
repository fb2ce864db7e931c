//! Events that tell whether the requests of a model go by predictions: the controller writes them, and `clairvoy explain` reads
//! them.

use std::fmt::{self, Display};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::store::{EventRow, Store, StoreError};

/// The event of a start. What is told before it is of another run, and nothing goes by predictions until it is told again.
pub(super) const STARTED: &str = "Clairvoy has started";
/// The event of a stop: Envoys go by capacity shares.
pub(super) const STOPS: &str = "Clairvoy stops";
const GOES: &str = " goes by ";
const CAPACITY: &str = "capacity shares: ";
const PREDICTIONS: &str = "predictions";
const AGAIN: &str = "predictions again";

/// The event that predictions steer all that they are meant to of a model, for the first time since the start.
pub(super) fn began(model: &str) -> String {
    format!("model {model}{GOES}{PREDICTIONS}")
}

/// The event that they steer nothing of it any more.
pub(super) fn fell(model: &str, cause: impl Display) -> String {
    format!("model {model}{GOES}{CAPACITY}{cause}")
}

/// The event that they steer it again.
pub(super) fn recovered(model: &str) -> String {
    format!("model {model}{GOES}{AGAIN}")
}

/// Whether of two events one tells that a model fell and the other that it recovered.
pub(super) fn are_opposite(one: &str, other: &str) -> bool {
    fn turn(message: &str) -> Option<(&str, bool)> {
        let (model, by) = message.split_once(GOES)?;
        let is_back = by == PREDICTIONS || by == AGAIN;
        (is_back || by.starts_with(CAPACITY)).then_some((model, is_back))
    }
    match (turn(one), turn(other)) {
        (Some((one, one_is_back)), Some((other, other_is_back))) => {
            one == other && one_is_back != other_is_back
        }
        _ => false,
    }
}

/// Since when, and why, the requests of a model go by capacity shares, whatever was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ByCapacity {
    since: DateTime<Utc>,
    cause: String,
}

impl ByCapacity {
    /// What the newest event up to a time that is about it tells; none where requests may go by predictions.
    fn of(event: &EventRow, model: &str) -> Option<Self> {
        let cause = match event.message.as_str() {
            STARTED => "Clairvoy had started",
            STOPS => "Clairvoy had stopped",
            message => message.strip_prefix(&fell(model, ""))?,
        };
        Some(Self { since: event.at, cause: cause.to_owned() })
    }
}

impl Display for ByCapacity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { since, cause } = self;
        write!(
            formatter,
            "not in force: since {} the model goes by capacity shares ({cause})",
            since.to_rfc3339()
        )
    }
}

/// Looks whether the requests of a model went by capacity shares at a time, as far as events tell.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn by_capacity(
    store: &Store,
    model: &str,
    at: DateTime<Utc>,
) -> Result<Option<ByCapacity>, StoreError> {
    let said = [STARTED.to_owned(), STOPS.to_owned(), began(model), recovered(model)];
    let event = store.newest_event(&said, &fell(model, ""), at).await?;
    Ok(event.and_then(|event| ByCapacity::of(&event, model)))
}

#[cfg(test)]
mod tests {
    use crate::store::EventLevel;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
    }

    fn told(message: String) -> Option<String> {
        let event = EventRow { at: at(0), level: EventLevel::Info, message };
        ByCapacity::of(&event, "chat").map(|by_capacity| by_capacity.to_string())
    }

    #[test]
    fn what_was_decided_is_not_in_force_while_a_model_goes_by_capacity() {
        let cause = "the telemetry of 1 of 4 backends is fresh";
        assert_eq!(
            told(fell("chat", cause)).unwrap(),
            "not in force: since 2023-11-14T22:13:20+00:00 the model goes by capacity shares (the telemetry of 1 of 4 \
             backends is fresh)"
        );
        assert_eq!((told(began("chat")), told(recovered("chat"))), (None, None));
        assert_eq!(told(fell("chat-large", cause)), None, "it is about another model");
    }

    #[test]
    fn neither_is_it_after_a_stop_and_after_a_start_until_it_is_told() {
        assert!(told(STARTED.to_owned()).unwrap().ends_with("(Clairvoy had started)"));
        assert!(told(STOPS.to_owned()).unwrap().ends_with("(Clairvoy had stopped)"));
    }

    #[test]
    fn falling_and_recovering_of_one_model_are_opposite() {
        assert!(are_opposite(&fell("chat", "a"), &recovered("chat")));
        assert!(are_opposite(&recovered("chat"), &fell("chat", "a")));
        assert!(are_opposite(&began("chat"), &fell("chat", "a")));
        assert!(!are_opposite(&fell("chat", "a"), &fell("chat", "b")));
        assert!(!are_opposite(&fell("chat", "a"), &recovered("other")));
        assert!(!are_opposite("the database is open", &recovered("chat")));
    }
}
