use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::Config;
use crate::fleet::{Membership, Origin};
use crate::learn::Lesson;
use crate::store::RegisteredState;

use super::super::database::Memory;
use super::super::steer::Steering;
use super::Core;

/// Saved weights older than this are not taken up: a frozen weight is the worst failure there is.
const WEIGHTS_LAST_SECONDS: f64 = 300.0;

impl Core {
    /// Takes up what the last run left, but for the backends about which orders came meanwhile: the database may open long
    /// after the start. It is no input: a checkpoint follows it, and has it all.
    pub(in crate::run) fn remember(&mut self, memory: Memory, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        let ordered = self.ordered.take().unwrap_or_default();
        self.remember_found(&memory.membership);
        for (pool, state) in memory.profiles {
            if config.pool(&pool).is_some() && !self.fleet.remember_class(&pool, state) {
                self.note("warning", format!("the saved profile of pool {pool} cannot be used"));
            }
        }
        self.fleet.reconcile(&config, now);
        for backend in memory.registered {
            let Ok(address) = backend.address.parse() else { continue };
            if !ordered.contains(&address) {
                self.remember_registered(&config, &backend.pool, address, backend.state, now);
            }
        }
        self.remember_leases(&memory.membership, &ordered, now);
        // What was saved before this was known lacks a part of it.
        for (pool, _) in &memory.membership {
            self.save_membership(pool, now);
        }
        for (model, saved_at, state) in memory.weights {
            let age = (now - saved_at).as_seconds_f64();
            if age <= WEIGHTS_LAST_SECONDS
                && let Ok(steering) = serde_json::from_value::<Steering>(state)
            {
                // What was decided meanwhile, without the database, is newer.
                if let Entry::Vacant(place) = self.steering.entry(model) {
                    let steering = place.insert(steering);
                    // Their Envoys are on the way.
                    let zones = steering.zones().filter(|zone| config.knows(zone));
                    self.zones.expect(zones, now);
                }
            }
        }
        for (model, state) in memory.canaries {
            self.remember_canary(&model, state, now);
        }
        for (kind, key, state) in memory.models {
            self.teach(Lesson::Restore(kind, key, state));
        }
        for (model, first_step, values) in memory.demand {
            self.teach(Lesson::CatchUp(model, first_step, values));
        }
        self.reconcile(now);
        self.fleet.take_for_served();
    }

    fn remember_registered(
        &mut self,
        config: &Config,
        pool: &str,
        address: SocketAddr,
        state: RegisteredState,
        now: DateTime<Utc>,
    ) {
        // One that has renewed its lease meanwhile has it anew, and drains on if it was set to drain.
        let known = self.fleet.backend(address).filter(|backend| {
            backend.pool == pool
                && backend.origin == Origin::Registered
                && !matches!(backend.membership, Membership::Leaving { .. })
        });
        let is_renewed = known.is_some();
        if !is_renewed && self.fleet.register(config, pool, address, now).is_err() {
            return;
        }
        if state == RegisteredState::Draining
            && self.fleet.drain(pool, address, now).is_ok_and(|changed| changed)
            && is_renewed
        {
            self.registered(pool, address, RegisteredState::Draining, now);
        }
    }
}
