use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::discovery::{
    Answer, Found, Lease, Looked, LookupFailure, MOST_FOUND, Merged, check_address, merge,
};
use crate::fleet::{FleetError, Origin, Registration};
use crate::store::RegisteredState;
use crate::view::DiscoveryView;

use super::super::journal::Entry;
use super::{Core, Counted, Effect};

/// The kind under which found backends and leases of a pool are saved.
pub(in super::super) const MEMBERSHIP: &str = "membership";
/// The kind under which published weights are saved.
pub(in super::super) const WEIGHTS: &str = "weights";

/// Longest wait for the first answers of DNS after a start.
const DNS_PATIENCE_SECONDS: f64 = 10.0;

/// What was found, and what was said about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in super::super) struct Discovered {
    pools: BTreeMap<String, Found>,
    /// Backends that were refused and told of; they are told again when they have been away.
    refused: BTreeMap<String, BTreeSet<SocketAddr>>,
    /// Last backends whose lease is over, by pool.
    overdue: BTreeMap<String, SocketAddr>,
    /// When refused registrations of a pool were last told, and how many were since.
    #[serde(default)]
    refusals: BTreeMap<String, (DateTime<Utc>, u64)>,
    /// Pools whose name in DNS has more backends than are taken.
    #[serde(default)]
    beyond: BTreeSet<String>,
}

/// Refused registrations are told at most so often: whoever repeats them must not crowd out other events.
const REFUSALS_EVERY_SECONDS: f64 = 60.0;

impl Discovered {
    pub(super) fn has_backends(&self, pool: &str) -> bool {
        self.pools.get(pool).is_some_and(|found| !found.backends.is_empty())
    }

    pub(super) fn retain(&mut self, config: &Config) {
        let is_there = |pool: &str| config.pool(pool).is_some_and(|pool| pool.dns().is_some());
        self.pools.retain(|pool, _| is_there(pool));
        self.refused.retain(|pool, _| is_there(pool));
        self.beyond.retain(|pool| is_there(pool));
        self.refusals.retain(|pool, _| config.pool(pool).is_some());
    }

    /// How discovery of a pool does; none where there is none.
    pub(in super::super) fn view(&self, pool: &str) -> Option<DiscoveryView> {
        let found = self.pools.get(pool);
        let overdue = self.overdue.get(pool);
        let stale = found.and_then(|found| found.stale.as_ref());
        let reason = match (stale, overdue) {
            (Some((_, failure)), _) => Some(failure.to_string()),
            (None, Some(address)) => Some(format!("the lease of {address}, the last backend, is over")),
            (None, None) => None,
        };
        (found.is_some() || overdue.is_some()).then(|| DiscoveryView {
            stale: reason.is_some(),
            stale_since: stale.map(|(since, _)| *since),
            holding: found.is_some_and(|found| found.holding),
            reason,
        })
    }
}

/// What is saved of a pool.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Saved {
    /// Backends that were found.
    found: Vec<SocketAddr>,
    /// Lengths of leases, seconds.
    leases: BTreeMap<SocketAddr, f64>,
}

fn saved(membership: &[(String, serde_json::Value)]) -> impl Iterator<Item = (&str, Saved)> {
    membership
        .iter()
        .filter_map(|(pool, state)| Some((pool.as_str(), serde_json::from_value(state.clone()).ok()?)))
}

/// The first few of many.
fn some_of(addresses: &BTreeSet<SocketAddr>) -> String {
    const NAMED: usize = 5;
    let named: Vec<String> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

impl Core {
    /// Takes up the backends that were found last time, where nothing was found since.
    pub(super) fn remember_found(&mut self, membership: &[(String, serde_json::Value)]) {
        for (pool, saved) in saved(membership) {
            let has_dns = self.config.pool(pool).is_some_and(|pool| pool.dns().is_some());
            if has_dns && !saved.found.is_empty() && !self.discovered.has_backends(pool) {
                let found = self.discovered.pools.entry(pool.to_owned()).or_default();
                found.backends = saved.found.iter().map(|address| (*address, None)).collect();
                self.fleet.set_found(pool, saved.found.into_iter().collect());
            }
        }
    }

    /// Leases begin anew with the process: while it was away nobody could renew one.
    pub(super) fn remember_leases(
        &mut self,
        membership: &[(String, serde_json::Value)],
        ordered: &BTreeSet<SocketAddr>,
        now: DateTime<Utc>,
    ) {
        for (pool, saved) in saved(membership) {
            let leases = saved.leases.into_iter().filter(|(address, _)| !ordered.contains(address));
            for (address, seconds) in leases {
                let backend = self.fleet.backend_mut(address).filter(|backend| {
                    backend.pool == pool && backend.origin == Origin::Registered && backend.lease.is_none()
                });
                if let Some(backend) = backend {
                    let length = TimeDelta::milliseconds((seconds * 1000.0) as i64);
                    backend.lease = Some(Lease::new(length, now));
                }
            }
        }
    }

    /// Whether a pool's backends in DNS may still become known: nothing was said of it, nothing is remembered, and the
    /// process is young.
    pub(super) fn awaits_dns(&self, now: DateTime<Utc>) -> bool {
        let unknown = |name: &str| !self.discovered.pools.contains_key(name);
        (now - self.started_at).as_seconds_f64() < DNS_PATIENCE_SECONDS
            && self.config.pools.iter().any(|pool| pool.dns().is_some() && unknown(&pool.name))
    }

    pub(super) fn save_membership(&mut self, pool: &str, now: DateTime<Utc>) {
        let found = self.discovered.pools.get(pool);
        let saved = Saved {
            found: found.map(|found| found.backends.keys().copied().collect()).unwrap_or_default(),
            leases: self.fleet.leases(pool).collect(),
        };
        if let Ok(state) = serde_json::to_value(&saved) {
            let entry = Entry::ModelState { kind: MEMBERSHIP, key: pool.to_owned(), at: now, state };
            self.effects.push(Effect::Journal(entry));
        }
    }

    /// Refuses what lies outside a pool's networks, and what is more than it may have.
    pub(super) fn check_registration(
        &mut self,
        pool: &str,
        address: SocketAddr,
        now: DateTime<Utc>,
    ) -> Result<(), FleetError> {
        let config = Arc::clone(&self.config);
        let settings = config.pool(pool).ok_or_else(|| FleetError::NoSuchPool(pool.to_owned()))?;
        if let Err(reason) = check_address(settings, address) {
            self.count(Counted::Refused(pool.to_owned(), Origin::Registered));
            self.note_refusal(pool, &reason, now);
            return Err(FleetError::NotAllowed(reason));
        }
        let is_known = self.fleet.backend(address).is_some_and(|backend| backend.pool == pool);
        let registered = self
            .fleet
            .backends()
            .filter(|backend| backend.pool == pool && backend.origin == Origin::Registered)
            .count();
        if !is_known && registered >= settings.max_registered {
            let full = FleetError::Full { pool: pool.to_owned(), limit: settings.max_registered };
            self.note_refusal(pool, &full.to_string(), now);
            return Err(full);
        }
        Ok(())
    }

    fn note_refusal(&mut self, pool: &str, reason: &str, now: DateTime<Utc>) {
        let told = self.discovered.refusals.get_mut(pool);
        if let Some((told_at, untold)) = told
            && (now - *told_at).as_seconds_f64() < REFUSALS_EVERY_SECONDS
        {
            *untold += 1;
            return;
        }
        let before = self.discovered.refusals.insert(pool.to_owned(), (now, 0));
        let others = match before {
            Some((_, untold @ 1..)) => format!("; {untold} others were since the last one that was told"),
            _ => String::new(),
        };
        self.note("warning", format!("a registration was refused: {reason}{others}"));
    }

    pub(super) fn count_registration(&mut self, pool: &str, done: Result<&Registration, &FleetError>) {
        let outcome = match done {
            Ok(Registration::New) => "new",
            Ok(Registration::Renewed) => "renewed",
            Err(FleetError::NotAllowed(_)) => "not_allowed",
            Err(FleetError::Full { .. }) => "full",
            Err(FleetError::Taken { .. }) => "taken",
            Err(_) => "not_found",
        };
        // Names that somebody made up get no series of their own.
        let pool = self.config.pool(pool).map(|pool| pool.name.clone()).unwrap_or_default();
        self.count(Counted::Registration(pool, outcome));
    }

    pub(super) fn lease(
        &mut self,
        pool: &str,
        address: SocketAddr,
        length: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Registration, FleetError> {
        let config = Arc::clone(&self.config);
        self.check_registration(pool, address, now)?;
        let done = self.fleet.lease(&config, pool, address, length, now)?;
        if done == Registration::New {
            let draining = self.fleet.backend(address).is_some_and(|backend| backend.is_draining());
            let state = if draining { RegisteredState::Draining } else { RegisteredState::Ready };
            // The lease first: written without it, the backend would stay for ever.
            self.save_membership(pool, now);
            self.registered(pool, address, state, now);
            let seconds = length.as_seconds_f64();
            self.note("info", format!("{address} was registered in pool {pool} for {seconds} s"));
            self.reconcile(now);
        }
        Ok(done)
    }

    /// Takes what DNS said of a pool.
    pub(super) fn looked(&mut self, looked: Looked, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        let Looked { pool, asked, answer, beyond } = looked;
        let Some(settings) = config.pool(&pool).filter(|settings| settings.dns() == Some(&asked)) else {
            return;
        };
        if beyond == 0 {
            if matches!(answer, Answer::Backends(_)) {
                self.discovered.beyond.remove(&pool);
            }
        } else {
            self.count(Counted::Looked(pool.clone(), "too_many"));
            if self.discovered.beyond.insert(pool.clone()) {
                let message = format!(
                    "{} has more than the {MOST_FOUND} backends that pool {pool} can take from one name: {beyond} are left out",
                    asked.name
                );
                self.note("error", message);
            }
        }
        let answer = match answer {
            Answer::Backends(listed) => {
                let (allowed, refused): (BTreeSet<_>, BTreeSet<_>) =
                    listed.into_iter().partition(|address| check_address(settings, *address).is_ok());
                let told = self.discovered.refused.insert(pool.clone(), refused.clone()).unwrap_or_default();
                let new: BTreeSet<SocketAddr> = refused.difference(&told).copied().collect();
                new.iter().for_each(|_| self.count(Counted::Refused(pool.clone(), Origin::Dns)));
                if let Some(Err(reason)) = new.first().map(|address| check_address(settings, *address)) {
                    let all = some_of(&new);
                    self.note("warning", format!("refused of what DNS has for pool {pool}: {all}. {reason}"));
                }
                match allowed.is_empty() {
                    true => Answer::Failed(LookupFailure::NotAllowed(asked.name.clone())),
                    false => Answer::Backends(allowed),
                }
            }
            failed @ Answer::Failed(_) => failed,
        };
        let outcome = match &answer {
            Answer::Backends(_) => "found",
            Answer::Failed(failure) => failure.kind(),
        };
        self.count(Counted::Looked(pool.clone(), outcome));
        let previous = self.discovered.pools.entry(pool.clone()).or_default();
        let merged = merge(previous, Some(&answer), settings.discovery.hold.0, now);
        self.take_merged(&pool, merged, now);
    }

    /// What the time alone brings about: held backends go, leases end.
    pub(super) fn pass_time(&mut self, now: DateTime<Utc>) {
        let config = Arc::clone(&self.config);
        let held: Vec<(String, Merged)> = self
            .discovered
            .pools
            .iter()
            .filter(|(_, found)| found.holding)
            .filter_map(|(name, found)| {
                let hold = config.pool(name)?.discovery.hold.0;
                Some((name.clone(), merge(found, None, hold, now)))
            })
            .collect();
        for (pool, merged) in held {
            self.take_merged(&pool, merged, now);
        }
        let expiry = self.fleet.expire(now);
        for (pool, address) in &expiry.left {
            let gone = Entry::Unregistered { pool: pool.clone(), address: address.to_string() };
            self.effects.push(Effect::Journal(gone));
            self.count(Counted::Expired(pool.clone()));
            self.save_membership(pool, now);
            self.note("warning", format!("the lease of {address} in pool {pool} is over: it drains"));
        }
        let overdue: BTreeMap<String, SocketAddr> = expiry.kept.into_iter().collect();
        for (pool, address) in &overdue {
            if self.discovered.overdue.get(pool) != Some(address) {
                let message = format!(
                    "the lease of {address} is over; it stays, because pool {pool} would have no backend without it"
                );
                self.note("error", message);
            }
        }
        self.discovered.overdue = overdue;
        if !expiry.left.is_empty() {
            self.reconcile(now);
        }
    }

    fn take_merged(&mut self, pool: &str, merged: Merged, now: DateTime<Utc>) {
        let Merged { found, came, went, became_stale, recovered, began_to_hold } = merged;
        let kept = found.backends.len();
        if let Some((_, failure)) = found.stale.as_ref().filter(|_| became_stale) {
            let message = match kept {
                0 => format!("pool {pool} has found no backends so far: {failure}"),
                _ => format!("pool {pool} keeps the {kept} backends that it found: {failure}"),
            };
            self.note("error", message);
        }
        if recovered {
            self.note("info", format!("discovery of pool {pool} works again"));
        }
        if began_to_hold {
            let missing = found.backends.values().flatten().count();
            let hold = self.config.pool(pool).map(|pool| pool.discovery.hold).unwrap_or_default();
            let message = format!(
                "{missing} of {kept} backends that pool {pool} found are gone at once: they stay for {hold} more"
            );
            self.note("warning", message);
        }
        for (addresses, what) in [(&came, "found in DNS for"), (&went, "gone from DNS, draining in")] {
            if !addresses.is_empty() {
                self.note("info", format!("{what} pool {pool}: {}", some_of(addresses)));
            }
        }
        let changed = !came.is_empty() || !went.is_empty();
        if changed {
            self.fleet.set_found(pool, found.backends.keys().copied().collect());
        }
        self.discovered.pools.insert(pool.to_owned(), found);
        if changed {
            self.save_membership(pool, now);
            self.reconcile(now);
            self.decide(now);
        }
    }
}
