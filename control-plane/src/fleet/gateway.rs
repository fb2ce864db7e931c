use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::envoy::{BackendLog, FirstBytes};

/// What Envoys tell of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GatewayView {
    /// Requests that ended since the backend joined.
    pub requests: f64,
    /// Requests among them that failed at it.
    pub errors: f64,
    /// The newest times to the first byte.
    pub first_bytes: Option<FirstBytes>,
    /// When Envoys last told of a request that it answered.
    pub served_at: Option<DateTime<Utc>>,
}

impl GatewayView {
    pub(super) fn observe(&mut self, log: &BackendLog, now: DateTime<Utc>) {
        self.requests += log.requests;
        self.errors += log.errors;
        self.first_bytes = log.first_bytes.last().copied().or(self.first_bytes);
        if log.has_answers() {
            self.served_at = Some(now);
        }
    }
}
