//! The load report of ORCA (Open Request Cost Aggregation) that answers carry.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::engine::{EngineState, Iteration};

use super::core::{Core, Utilisation};

/// Asks for a report, and in which form; vLLM has the same header.
const FORMAT_HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics-format");
/// Carries it.
const REPORT_HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");
/// Time constant of the figures: short enough to follow a surge, long enough that one long answer says nothing.
const SMOOTHING_SECONDS: f64 = 5.0;

/// The report that a request asks for, as a header of its answer.
pub(super) fn header(core: &Core, request: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
    let format = request.get(FORMAT_HEADER)?;
    let report = core.orca_report();
    let text = if format.as_bytes().eq_ignore_ascii_case(b"json") {
        format!("JSON {report}")
    } else {
        let fields = report.as_object()?.iter().map(|(name, value)| format!("{name}={value}"));
        format!("TEXT {}", fields.collect::<Vec<_>>().join(", "))
    };
    Some((REPORT_HEADER, HeaderValue::from_str(&text).ok()?))
}

/// Smoothed rate of answers and busy time of an engine.
#[derive(Debug)]
pub(super) struct Load {
    rps: f64,
    rps_at: f64,
    busy: Utilisation,
}

impl Default for Load {
    fn default() -> Self {
        Self { rps: 0.0, rps_at: 0.0, busy: Utilisation::new(SMOOTHING_SECONDS) }
    }
}

impl Load {
    pub(super) fn observe(&mut self, iteration: &Iteration) {
        self.busy.extend(iteration.started_at, false);
        self.busy.extend(iteration.ended_at, true);
        let completed = iteration.outputs.iter().filter(|output| output.completion.is_some()).count();
        self.rps = self.rps_now(iteration.ended_at) + completed as f64 / SMOOTHING_SECONDS;
        self.rps_at = iteration.ended_at;
    }

    /// `rps_fractional`: answers in a thousand seconds, because Envoy makes whole numbers of its weights and a few answers a second
    /// would leave few of them. `application_utilization`: the part of the time in which the engine worked or of the cache in use,
    /// whichever is more, and beyond it the queue in parts of a full batch.
    pub(super) fn report(
        &self,
        now: f64,
        busy_since: Option<f64>,
        state: &EngineState,
        max_num_seqs: usize,
    ) -> Value {
        let mut busy = self.busy;
        busy.extend(busy_since.unwrap_or(now), false);
        busy.extend(now, busy_since.is_some());
        let queue = state.waiting as f64 / max_num_seqs as f64;
        json!({
            "rps_fractional": rounded(1000.0 * self.rps_now(now)),
            "application_utilization": rounded(busy.part.max(state.kv_used) + queue),
        })
    }

    fn rps_now(&self, now: f64) -> f64 {
        self.rps * (-(now - self.rps_at).max(0.0) / SMOOTHING_SECONDS).exp()
    }
}

/// Four digits are plenty, and keep the header short.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
