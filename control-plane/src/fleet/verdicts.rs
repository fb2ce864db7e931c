use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::AnomalyKind;

use crate::config::Config;
use crate::decide::{Judged, Seen, Signs, Verdict};

use super::{Backend, Fleet, Health};

/// What the verdict on a backend is made of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Standing {
    signs: Signs,
    judged: Judged,
    /// Since when it has been up; none for one that was up before it was known.
    up_since: Option<DateTime<Utc>>,
    /// Whether it served before it was known, as far as can be told.
    served_before: bool,
}

impl Standing {
    /// Notes telemetry: whether it is the first, and whether it shows that the backend has started anew.
    pub(super) fn showed(&mut self, is_first: bool, has_restarted: bool, now: DateTime<Utc>) {
        if has_restarted || (is_first && !self.served_before) {
            self.up_since = Some(now);
        }
    }
}

/// A backend on which the verdict is another one than before.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVerdict {
    /// The backend.
    pub address: SocketAddr,
    /// Its pool.
    pub pool: String,
    /// The verdict before.
    pub before: Verdict,
    /// The verdict now.
    pub verdict: Verdict,
    /// What it goes by, where it goes by more than the time since the start.
    pub sign: Option<AnomalyKind>,
}

impl Fleet {
    /// Judges every backend anew: once a second. Returns those on which the verdict has changed.
    pub fn judge(&mut self, config: &Config, now: DateTime<Utc>) -> Vec<NewVerdict> {
        let mut changed = Vec::new();
        for backend in self.backends.values_mut() {
            let warm_up_seconds = config.pool(&backend.pool).map_or(0.0, |pool| pool.warm_up.as_seconds());
            let standing = &backend.standing;
            let seen = Seen {
                signs: standing.signs,
                kv_used: backend.sample.as_ref().and_then(|sample| sample.kv_used),
                answers: backend.health(now) == Health::Ready,
                up_seconds: standing.up_since.map(|since| (now - since).as_seconds_f64()),
                warm_up_seconds,
            };
            let judged = standing.judged.next(&seen, now);
            let (before, verdict, sign) = (standing.judged.verdict(), judged.verdict(), judged.sign());
            backend.standing.judged = judged;
            if before != verdict {
                let (address, pool) = (backend.address, backend.pool.clone());
                changed.push(NewVerdict { address, pool, before, verdict, sign });
            }
        }
        changed
    }

    /// Takes all backends for ones that served before they were known: what is there at the start, and what the last run left.
    pub fn take_for_served(&mut self) {
        for backend in self.backends.values_mut() {
            backend.standing.served_before = true;
            backend.standing.up_since = None;
        }
    }
}

impl Backend {
    /// Takes the scores of what the learner finds of it at the moment.
    pub fn take_signs(&mut self, signs: Signs) {
        self.standing.signs = signs;
    }

    /// The verdict on it, by which its share is bounded.
    pub fn judged(&self) -> &Judged {
        &self.standing.judged
    }
}
