use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::config::{Config, Model};
use crate::fleet::{Membership, Origin, Registration};
use crate::learn::Lesson;
use crate::store::{BackendRow, DemandRow, RegisteredState};

use super::super::commands::Refusal;
use super::super::journal::Entry;
use super::learned::classes;
use super::{Core, Effect, Order};

impl Core {
    pub(super) fn obey(&mut self, order: Order, now: DateTime<Utc>) -> Result<Option<Registration>, Refusal> {
        let config = Arc::clone(&self.config);
        match order {
            Order::Register { pool, address } => {
                let checked = self.check_registration(&pool, address, now);
                let done = checked.and_then(|()| self.fleet.register(&config, &pool, address, now));
                self.count_registration(&pool, done.as_ref().map(|()| &Registration::New));
                done?;
                self.ordered(address);
                self.save_membership(&pool, now);
                self.registered(&pool, address, RegisteredState::Ready, now);
                self.note("info", format!("{address} was registered in pool {pool}"));
                self.reconcile(now);
            }
            Order::Lease { pool, address, length } => {
                let done = self.lease(&pool, address, length, now);
                self.count_registration(&pool, done.as_ref());
                return done.map(Some);
            }
            Order::Drain { pool, address } => {
                let changed = self.fleet.drain(&pool, address, now)?;
                self.ordered(address);
                // Of one that leaves the database has no row any more, and must not get one again.
                if changed {
                    self.registered(&pool, address, RegisteredState::Draining, now);
                    self.note("info", format!("{address} in pool {pool} is draining"));
                    self.decide(now);
                }
            }
            Order::Remove { pool, address } => {
                self.fleet.remove(&pool, address, now)?;
                self.ordered(address);
                let gone = Entry::Unregistered { pool: pool.clone(), address: address.to_string() };
                self.effects.push(Effect::Journal(gone));
                self.note("info", format!("{address} leaves pool {pool} after it has drained"));
                self.save_membership(&pool, now);
                self.decide(now);
            }
            Order::ResumeCanary { model } => self.resume_canary(&model, now)?,
            Order::Learn { histories } => {
                for (model, first_step, values) in histories {
                    self.teach(Lesson::History(model, first_step, values));
                }
            }
        }
        Ok(None)
    }

    /// What was ordered counts for more than what the last run left, whenever that comes.
    fn ordered(&mut self, address: SocketAddr) {
        if let Some(ordered) = &mut self.ordered {
            ordered.insert(address);
        }
    }

    pub(super) fn registered(
        &mut self,
        pool: &str,
        address: SocketAddr,
        state: RegisteredState,
        at: DateTime<Utc>,
    ) {
        let is_registered =
            self.fleet.backend(address).is_some_and(|backend| backend.origin == Origin::Registered);
        if is_registered {
            let entry = Entry::Registered { pool: pool.to_owned(), address: address.to_string(), state, at };
            self.effects.push(Effect::Journal(entry));
        }
    }

    /// A model that has backends now and would have none: more likely a mistake than a wish.
    pub(crate) fn emptied_by(&self, config: &Config) -> Option<String> {
        let takes = |backend: &&crate::fleet::Backend| backend.membership == Membership::Active;
        let keeps = |model: &Model| {
            let mut pools = model.pools.iter().filter_map(|name| config.pool(name));
            pools.any(|pool| {
                let registered = self
                    .fleet
                    .backends()
                    .filter(takes)
                    .any(|backend| backend.origin == Origin::Registered && backend.pool == pool.name);
                let found = pool.dns().is_some() && self.discovered.has_backends(&pool.name);
                registered || found || !pool.backends.is_empty()
            })
        };
        let serves = |model: &&Model| self.fleet.of_model(&model.name).any(|backend| takes(&backend));
        config.models.iter().filter(serves).find(|model| !keeps(model)).map(|model| model.name.clone())
    }

    /// Brings the fleet and the database's list of backends in line with the configuration.
    pub(crate) fn reconcile(&mut self, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        self.fleet.reconcile(&config, now);
        self.steering.retain(|model, _| config.models.iter().any(|known| known.name == *model));
        self.reliance.retain(|model, _| config.models.iter().any(|known| known.name == *model));
        self.keep_canaries(now);
        self.sheds.retain(|model, _| config.models.iter().any(|known| known.name == *model));
        self.forecasts.retain(|model, _| config.models.iter().any(|known| known.name == *model));
        self.plans.retain(|pool, _| config.pool(pool).is_some());
        self.classes = classes(&config);
        let rows = self.fleet.backends().map(|backend| BackendRow {
            address: backend.address.to_string(),
            pool: backend.pool.clone(),
            model: backend.model.clone(),
        });
        let known = Entry::Backends(rows.collect());
        self.effects.extend([Effect::Members, Effect::Journal(known)]);
    }

    pub(super) fn sweep(&mut self, now: DateTime<Utc>) {
        let gone = self.fleet.sweep(self.config.balance.drain_time.as_seconds(), now);
        for backend in &gone {
            self.teach(Lesson::Forget(backend.address));
        }
        if !gone.is_empty() {
            self.reconcile(now);
        }
    }

    /// Hands the demand of the steps that are over to the learner and to the database.
    pub(super) fn close_steps(&mut self, now: DateTime<Utc>) {
        let step_seconds = self.step_seconds();
        for (model, step) in self.fleet.close_steps(now) {
            let at = DateTime::<Utc>::from_timestamp(step.index * step_seconds, 0);
            if let (Some(rate), Some(at)) = (step.requests_per_second, at) {
                let row = DemandRow { model: model.clone(), at, requests_per_second: rate };
                let step_seconds = u32::try_from(step_seconds).unwrap_or(u32::MAX);
                self.effects.push(Effect::Journal(Entry::Demand { step_seconds, rows: vec![row] }));
            }
            self.teach(Lesson::Step(model, step));
        }
    }

    pub(super) fn step_seconds(&self) -> i64 {
        i64::try_from(self.config.forecast.step.0.as_secs().max(1)).unwrap_or(i64::MAX)
    }
}
