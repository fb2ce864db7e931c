use super::input::{BackendInput, Law, ModelInput, Verdict};
use super::output::{Clamp, Terms};

/// Slower than this is worth a word.
const NOTABLE_SLOWDOWN: f64 = 1.15;
/// A correction of this part of the inflow is worth a word.
const NOTABLE_CORRECTION: f64 = 0.02;

/// What moved a share, in words.
pub(super) fn reason(model: &ModelInput, backend: &BackendInput, terms: &Terms, law: &Law) -> String {
    if model.observed_seconds < law.window_seconds {
        return format!("less than {:.0} s of telemetry yet: capacity share", law.window_seconds);
    }
    let Some(age) = backend.age_seconds else { return "no telemetry: capacity share".to_owned() };
    let is_capped = matches!(terms.clamp, Some(Clamp::Sick | Clamp::Warming));
    if terms.trust <= 0.0 && !is_capped {
        return "telemetry is stale: capacity share".to_owned();
    }
    let mut parts: Vec<String> = verdict(backend, terms).into_iter().collect();
    if terms.slowdown >= NOTABLE_SLOWDOWN {
        parts.push(format!("runs {:.1} times slower than usual", terms.slowdown));
    }
    if terms.trust < 1.0 {
        parts.push(format!(
            "telemetry is {age:.0} s old: {:.0} % capacity share",
            100.0 * (1.0 - terms.trust)
        ));
    }
    if terms.surcharge_seconds > 0.0 {
        parts.push("its requests are dear".to_owned());
    }
    match (terms.clamp, terms.in_flight) {
        (Some(Clamp::Floor), _) => {
            let why = if backend.verdict == Verdict::Warming { "get warm" } else { "be seen again" };
            parts.push(format!("kept at {:.2} requests/s, to {why}", terms.floor_rps));
        }
        (Some(Clamp::Sick), _) => {
            let rps = terms.cap_rps.unwrap_or_default();
            parts.push(format!("kept at {rps:.2} requests/s, to be seen well again"));
        }
        (Some(Clamp::Warming), _) => {
            let rps = terms.cap_rps.unwrap_or_default();
            parts.push(format!("held at {rps:.2} requests/s while it warms up"));
        }
        (Some(Clamp::Ceiling), _) => parts.push(format!("held at {:.2} requests/s", terms.ceiling_rps)),
        (None, Some(now)) if terms.correction_rps.abs() > NOTABLE_CORRECTION * terms.inflow_rps => {
            let side = if terms.correction_rps < 0.0 { "above" } else { "below" };
            parts.push(format!(
                "{now:.1} requests in flight are {side} the {:.1} that the common level gives it",
                terms.target_in_flight
            ));
        }
        _ => {}
    }
    if parts.is_empty() { "at the common level".to_owned() } else { parts.join("; ") }
}

fn verdict(backend: &BackendInput, terms: &Terms) -> Option<String> {
    let sign = backend.sign.map(|kind| format!(" ({})", kind.name().replace('_', " "))).unwrap_or_default();
    // One that is not bounded although it is sick is one of many.
    let is_bounded = terms.cap_rps.is_some();
    match backend.verdict {
        Verdict::Usual => None,
        Verdict::Warming => Some(format!("has just started{sign}")),
        Verdict::Sick if is_bounded => Some(format!("is sick{sign}")),
        Verdict::Sick => Some(format!("looks sick{sign}, as most do")),
    }
}
