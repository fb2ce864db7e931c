//! What should have happened in the minute.

use super::{evidence::best_rise, outcome::Outcome, world::MODELS};

/// One expectation, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) expectation: &'static str,
    pub(super) passed: bool,
    pub(super) seen: String,
}

/// Judges a run.
pub(super) fn judge(outcome: &Outcome) -> Vec<Check> {
    let observations = &outcome.observations;
    let totals = &observations.last.totals;
    let failures = outcome.failures();
    let unanswered = failures.total() + outcome.unfinished() + outcome.over_the_cap();
    let unforeseen: Vec<&str> =
        MODELS.into_iter().filter(|model| !observations.first_forecasts.contains_key(*model)).collect();
    let halved = observations.slowed.as_ref().is_some_and(|slowed| slowed.halved_after.is_some());
    let slowed = observations.slowed.as_ref().map_or_else(
        || "no server was slowed".to_owned(),
        |slowed| format!("from {:.1} % to {:.1} %", slowed.before * 100.0, slowed.lowest * 100.0),
    );
    let rises = outcome.forecasts.iter().filter(|model| best_rise(&model.rows).is_some()).count();
    let check = |expectation, passed, seen| Check { expectation, passed, seen };
    vec![
        check(
            "every Envoy is in sync",
            outcome.proxies_in_sync() == outcome.proxies_expected,
            format!("{} of {}", outcome.proxies_in_sync(), outcome.proxies_expected),
        ),
        check(
            "every request is answered",
            outcome.sent() > 0 && unanswered == 0,
            format!(
                "{} sent, failed: {failures}, unfinished: {}, not sent: {}",
                outcome.sent(),
                outcome.unfinished(),
                outcome.over_the_cap()
            ),
        ),
        check(
            "telemetry is in Postgres",
            totals.telemetry_rows > 0,
            format!("{} rows", totals.telemetry_rows),
        ),
        check(
            "every model has a forecast",
            unforeseen.is_empty() && totals.forecasts > 0,
            format!("{} forecasts, none for: {}", totals.forecasts, unforeseen.join(", ")),
        ),
        check("shares move", totals.weight_changes > 0, format!("{} weight changes", totals.weight_changes)),
        check("the share of the slowed server halves", halved, slowed),
        check(
            "webhooks come, all of them genuine",
            outcome.webhooks.accepted > 0 && outcome.webhooks_refused() == 0,
            format!("{} verified, {} refused", outcome.webhooks.accepted, outcome.webhooks_refused()),
        ),
        check(
            "a server is added and gets requests",
            !observations.in_use.is_empty(),
            format!("{} added, {} in use", outcome.scaling.added.len(), observations.in_use.len()),
        ),
        check(
            "a forecast rises before the demand does",
            rises > 0,
            format!("seen for {rises} of {} models", outcome.forecasts.len()),
        ),
    ]
}
