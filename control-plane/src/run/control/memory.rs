use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::learn::Lesson;
use crate::store::RegisteredState;

use super::super::database::Memory;
use super::super::steer::Steering;
use super::Core;

/// Saved weights older than this are not taken up: a frozen weight is the worst failure there is.
const WEIGHTS_LAST_SECONDS: f64 = 300.0;

impl Core {
    /// Takes up what the last run left. It is no input: a checkpoint follows it, and has it all.
    pub(in crate::run) fn remember(&mut self, memory: Memory, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        self.remember_found(&memory.membership);
        self.fleet.reconcile(&config, now);
        for backend in memory.registered {
            let Ok(address) = backend.address.parse() else { continue };
            if self.fleet.register(&config, &backend.pool, address, now).is_ok()
                && backend.state == RegisteredState::Draining
            {
                let _ = self.fleet.drain(&backend.pool, address, now);
            }
        }
        self.remember_leases(&memory.membership, now);
        for (model, saved_at, state) in memory.weights {
            let age = (now - saved_at).as_seconds_f64();
            if age <= WEIGHTS_LAST_SECONDS
                && let Ok(steering) = serde_json::from_value::<Steering>(state)
            {
                // What was decided meanwhile, without the database, is newer.
                self.steering.entry(model).or_insert(steering);
            }
        }
        for (kind, key, state) in memory.models {
            self.teach(Lesson::Restore(kind, key, state));
        }
        for (model, first_step, values) in memory.demand {
            self.teach(Lesson::CatchUp(model, first_step, values));
        }
        self.reconcile(now);
    }
}
