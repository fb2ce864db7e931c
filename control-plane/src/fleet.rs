//! Fleet: the newest known state of every model and backend, in memory.
//!
//! One task owns it and writes it; it does no I/O and reads no clock. Memory is bounded: a backend keeps its newest
//! sample, ten seconds of rates and what was learned of it (about 3 KiB), a model twenty seconds of arrivals by its servers
//! and fifty by Envoys.

mod again;
mod arrivals;
mod backend;
mod backends;
mod demand;
mod frozen;
mod gateway;
mod groups;
mod lanes;
mod leases;
mod membership;
mod mix;
mod node_zones;
mod outcomes;
mod profiles;
mod reports;
mod silence;
mod tokens;
mod verdicts;

pub use arrivals::{Arrivals, Step};
pub use backend::{Backend, Findings, Health};
pub use demand::{Demand, Source};
pub use gateway::GatewayView;
pub use groups::GroupTraffic;
pub use lanes::LaneRates;
pub use leases::{Expiry, Registration};
pub use membership::{Membership, Origin};
pub use node_zones::NodeZones;
pub use reports::Reports;
pub use verdicts::NewVerdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Pool};
use crate::telemetry::Sample;

use backends::Backends;
use lanes::LaneTraffic;
use outcomes::RecentOutcomes;
use profiles::PoolClass;
use tokens::LoggedTokens;

/// Reports of one time may come this long after each other, seconds: the longest interval, missed three times.
const REPORTS_LAG_SECONDS: u32 = 40;

/// The fleet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fleet {
    backends: Backends,
    /// As the servers count them.
    arrivals: BTreeMap<String, Arrivals>,
    /// As the Envoys report them.
    reported: BTreeMap<String, Arrivals>,
    /// As access logs told them.
    #[serde(default)]
    lanes: BTreeMap<String, LaneTraffic>,
    /// How both parts of the requests of canaries fared, as access logs told it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    outcomes: BTreeMap<String, RecentOutcomes>,
    reports: Reports,
    /// As access logs told them; only shown.
    #[serde(skip)]
    logged_tokens: BTreeMap<String, LoggedTokens>,
    step_seconds: u32,
    /// Configured and found backends that were removed all the same; they stay away until they are registered, or leave
    /// the configuration and DNS.
    dismissed: BTreeSet<SocketAddr>,
    /// Backends that were found, by pool.
    found: BTreeMap<String, BTreeSet<SocketAddr>>,
    /// What is known of the backends of a pool in general.
    #[serde(default)]
    classes: BTreeMap<String, PoolClass>,
}

/// Why a backend cannot be registered, drained or removed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// No pool of that name.
    #[error("there is no pool `{0}`")]
    NoSuchPool(String),
    /// No backend of that address in that pool.
    #[error("pool `{pool}` has no backend {address}")]
    NoSuchBackend {
        /// The pool asked for.
        pool: String,
        /// The address asked for.
        address: SocketAddr,
    },
    /// Without it the model would have no backend.
    #[error("{0} is the last backend of its model that takes requests: register another one first")]
    Last(SocketAddr),
    /// The pool has as many registered backends as it may have.
    #[error("pool `{pool}` has {limit} registered backends already, which is its `max_registered`")]
    Full {
        /// The pool asked for.
        pool: String,
        /// How many it may have.
        limit: usize,
    },
    /// It lies outside the networks of its pool.
    #[error("{0}")]
    NotAllowed(String),
    /// No model of that name.
    #[error("there is no model `{0}`")]
    NoSuchModel(String),
    /// Its canary has not stepped back.
    #[error("the canary of model `{0}` has not stepped back: there is nothing to resume")]
    NotSteppedBack(String),
    /// The address serves another pool.
    #[error("{address} already belongs to pool `{pool}`")]
    Taken {
        /// The address asked for.
        address: SocketAddr,
        /// The pool that has it.
        pool: String,
    },
}

impl Fleet {
    /// Brings the fleet in line with a configuration: new backends come in, those that are gone from it start to leave.
    pub fn reconcile(&mut self, config: &Config, now: DateTime<Utc>) {
        let step_seconds = config.forecast.step.as_seconds() as u32;
        self.step_seconds = step_seconds;
        for arrivals in [&mut self.arrivals, &mut self.reported] {
            arrivals.retain(|name, _| config.models.iter().any(|model| model.name == *name));
        }
        self.lanes.retain(|name, _| config.models.iter().any(|model| model.name == *name));
        self.logged_tokens.retain(|name, _| config.models.iter().any(|model| model.name == *name));
        self.keep_outcomes(config);
        self.found.retain(|name, _| config.pool(name).is_some_and(|pool| pool.dns().is_some()));
        self.classes.retain(|name, _| config.pool(name).is_some());
        let found = &self.found;
        self.dismissed.retain(|address| {
            let is_found = found.values().any(|found| found.contains(address));
            is_found || config.pools.iter().any(|pool| pool.backends.contains(address))
        });
        for model in &config.models {
            self.arrivals.entry(model.name.clone()).or_insert_with(|| Arrivals::new(step_seconds));
            let reported = || Arrivals::with_lag(step_seconds, REPORTS_LAG_SECONDS);
            self.reported.entry(model.name.clone()).or_insert_with(reported);
            let lanes = || LaneTraffic::new(step_seconds, REPORTS_LAG_SECONDS);
            self.lanes.entry(model.name.clone()).or_insert_with(lanes);
            self.logged_tokens.entry(model.name.clone()).or_default();
            for pool in model.pools.iter().filter_map(|name| config.pool(name)) {
                for address in &pool.backends {
                    if !self.dismissed.contains(address) {
                        self.admit(*address, &model.name, pool, Origin::Configured, now);
                    }
                }
                for address in self.found.get(&pool.name).cloned().unwrap_or_default() {
                    let taken = self.backends.get(&address).is_some_and(|other| other.pool != pool.name);
                    if !taken && !self.dismissed.contains(&address) {
                        self.admit(address, &model.name, pool, Origin::Dns, now);
                    }
                }
            }
        }
        for backend in self.backends.values_mut() {
            let pool = config.pool(&backend.pool);
            backend.set_telemetry_of(pool);
            let is_configured = pool.is_some_and(|pool| pool.backends.contains(&backend.address));
            let is_found =
                self.found.get(&backend.pool).is_some_and(|found| found.contains(&backend.address));
            match backend.origin {
                Origin::Registered if pool.is_some() => {}
                _ if is_configured => backend.origin = Origin::Configured,
                _ if is_found => backend.origin = Origin::Dns,
                _ => backend.leave(now),
            }
        }
    }

    fn admit(&mut self, address: SocketAddr, model: &str, pool: &Pool, origin: Origin, now: DateTime<Utc>) {
        let class = self.classes.get(&pool.name).and_then(PoolClass::profile);
        let is_same = |backend: &Backend| backend.pool == pool.name && backend.model == model;
        if !self.backends.get(&address).is_some_and(is_same) {
            let mut backend = Backend::new(address, model, &pool.name, origin, now);
            backend.learner.inherit(class);
            self.backends.insert(backend);
        }
        let Some(backend) = self.backends.get_mut(&address) else { return };
        if matches!(backend.membership, Membership::Leaving { .. }) {
            backend.membership = Membership::Active;
            backend.origin = origin;
            backend.lease = None;
        }
        backend.set_telemetry_of(Some(pool));
    }

    /// Adds a backend to a pool, or takes back one that was draining.
    pub fn register(
        &mut self,
        config: &Config,
        pool: &str,
        address: SocketAddr,
        now: DateTime<Utc>,
    ) -> Result<(), FleetError> {
        let settings = config.pool(pool).ok_or_else(|| FleetError::NoSuchPool(pool.to_owned()))?;
        let model = config.models.iter().find(|model| model.pools.iter().any(|name| name == pool));
        let model = model.ok_or_else(|| FleetError::NoSuchPool(pool.to_owned()))?;
        if let Some(other) = self.backends.get(&address).filter(|other| other.pool != pool) {
            return Err(FleetError::Taken { address, pool: other.pool.clone() });
        }
        self.dismissed.remove(&address);
        self.admit(address, &model.name, settings, Origin::Registered, now);
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.membership = Membership::Active;
            backend.lease = None;
            if backend.origin == Origin::Dns {
                backend.origin = Origin::Registered;
            }
        }
        Ok(())
    }

    /// Says which backends of a pool were found; `reconcile` brings the fleet in line with it.
    pub fn set_found(&mut self, pool: &str, backends: BTreeSet<SocketAddr>) {
        self.found.insert(pool.to_owned(), backends);
    }

    /// Stops new requests to a backend; it stays in the pool and finishes its streams. Returns whether that changed anything:
    /// one that drains or leaves already goes on with it.
    pub fn drain(&mut self, pool: &str, address: SocketAddr, now: DateTime<Utc>) -> Result<bool, FleetError> {
        self.check_not_last(pool, address)?;
        let backend = self.find(pool, address)?;
        let is_active = backend.membership == Membership::Active;
        if is_active {
            backend.membership = Membership::Draining { since: now };
        }
        Ok(is_active)
    }

    /// Stops new requests to a backend and removes it once the drain time is over.
    pub fn remove(&mut self, pool: &str, address: SocketAddr, now: DateTime<Utc>) -> Result<(), FleetError> {
        self.check_not_last(pool, address)?;
        self.find(pool, address)?.leave(now);
        self.dismissed.insert(address);
        Ok(())
    }

    fn check_not_last(&mut self, pool: &str, address: SocketAddr) -> Result<(), FleetError> {
        let backend = self.find(pool, address)?;
        if backend.membership != Membership::Active {
            return Ok(());
        }
        let model = backend.model.clone();
        let others = self.of_model(&model).filter(|other| other.membership == Membership::Active);
        if others.count() > 1 { Ok(()) } else { Err(FleetError::Last(address)) }
    }

    fn find(&mut self, pool: &str, address: SocketAddr) -> Result<&mut Backend, FleetError> {
        let missing = FleetError::NoSuchBackend { pool: pool.to_owned(), address };
        self.backends.get_mut(&address).filter(|backend| backend.pool == pool).ok_or(missing)
    }

    /// Forgets the backends whose drain time is over, and returns them.
    pub fn sweep(&mut self, drain_seconds: f64, now: DateTime<Utc>) -> Vec<Backend> {
        let gone: Vec<SocketAddr> = self
            .backends
            .values()
            .filter(|backend| {
                matches!(backend.membership, Membership::Leaving { since }
                    if (now - since).as_seconds_f64() >= drain_seconds)
            })
            .map(|backend| backend.address)
            .collect();
        gone.iter().filter_map(|address| self.backends.remove(address)).collect()
    }

    /// Takes a sample that came at `now`; false when its backend is not in the fleet.
    pub fn observe(&mut self, address: SocketAddr, sample: Sample, now: DateTime<Utc>) -> bool {
        let Some(backend) = self.backends.get_mut(&address) else { return false };
        if let Some(arrivals) = self.arrivals.get_mut(&backend.model) {
            let Sample { at, arrived, output_tokens, interval_seconds, .. } = sample;
            arrivals.observe(at, arrived, output_tokens, interval_seconds, now);
        }
        backend.observe(sample, now);
        true
    }

    /// Notes a failed scrape: whether the connection was refused, or none when nothing came back at all.
    pub fn observe_failure(&mut self, address: SocketAddr, refused: Option<bool>, message: String) {
        if let Some(backend) = self.backends.get_mut(&address) {
            backend.observe_failure(refused, message);
        }
    }

    /// A backend.
    pub fn backend(&self, address: SocketAddr) -> Option<&Backend> {
        self.backends.get(&address)
    }

    /// A backend, to be changed.
    pub fn backend_mut(&mut self, address: SocketAddr) -> Option<&mut Backend> {
        self.backends.get_mut(&address)
    }

    /// All backends, by address.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        self.backends.values()
    }

    /// The backends of a model, by address.
    pub fn of_model(&self, model: &str) -> impl Iterator<Item = &Backend> {
        self.backends.of_model(model)
    }

    /// The time up to which the model's backends with fresh telemetry have told what arrived; `now` without any.
    fn told_until(&self, model: &str, now: DateTime<Utc>) -> DateTime<Utc> {
        let fresh = self
            .of_model(model)
            .filter(|backend| backend.is_expected(now) && backend.health(now) == Health::Ready);
        let until = fresh.filter_map(|backend| Some(backend.sample.as_ref()?.at)).min();
        until.map_or(now, |until| until.min(now))
    }

    /// Whether all backends that share a model's demand show themselves.
    fn servers_are_seen(&self, model: &str, now: DateTime<Utc>) -> bool {
        self.of_model(model)
            .filter(|backend| backend.is_expected(now))
            .all(|backend| backend.health(now) == Health::Ready)
    }

    /// Whether it has a model of that name.
    pub fn has_model(&self, name: &str) -> bool {
        self.reported.contains_key(name)
    }

    /// Which Envoys report.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Sets the interval at which Envoys are asked to report, seconds.
    pub fn set_report_interval(&mut self, seconds: f64) {
        self.reports.set_interval(seconds);
    }
}

#[cfg(test)]
mod reports_tests;
#[cfg(test)]
mod tests;
