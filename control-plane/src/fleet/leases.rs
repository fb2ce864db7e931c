use std::net::SocketAddr;

use chrono::{DateTime, TimeDelta, Utc};

use crate::config::Config;
use crate::discovery::Lease;

use super::{Fleet, FleetError, Membership, Origin};

/// What a registration with a lease came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// The backend is new, or was leaving, or had no lease of that length.
    New,
    /// Its lease begins anew.
    Renewed,
}

/// What came of leases that are over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiry {
    /// Backends that leave now: pool and address.
    pub left: Vec<(String, SocketAddr)>,
    /// Backends that stay because their pools would have none: pool and address.
    pub kept: Vec<(String, SocketAddr)>,
}

impl Fleet {
    /// Registers a backend for a time, or renews its lease. One that was set to drain goes on draining: its owner, who
    /// renews, is not who took it out of service.
    pub fn lease(
        &mut self,
        config: &Config,
        pool: &str,
        address: SocketAddr,
        length: TimeDelta,
        now: DateTime<Utc>,
    ) -> Result<Registration, FleetError> {
        let lease = Lease::new(length, now);
        let known = self.backends.get_mut(&address).filter(|backend| {
            backend.pool == pool
                && backend.origin == Origin::Registered
                && !matches!(backend.membership, Membership::Leaving { .. })
        });
        if let Some(backend) = known {
            let same = backend.lease.is_some_and(|lease| lease.length == length);
            backend.lease = Some(lease);
            return Ok(if same { Registration::Renewed } else { Registration::New });
        }
        let draining = self.backends.get(&address).map(|backend| backend.membership);
        self.register(config, pool, address, now)?;
        // One of the file needs no lease, and stays when it is over.
        let leased = self.backends.get_mut(&address).filter(|backend| backend.origin == Origin::Registered);
        if let Some(backend) = leased {
            backend.lease = Some(lease);
            if let Some(draining @ Membership::Draining { .. }) = draining {
                backend.membership = draining;
            }
        }
        Ok(Registration::New)
    }

    /// Has the registered backends leave whose leases are over, oldest first. The last one of a pool that takes requests
    /// stays.
    pub fn expire(&mut self, now: DateTime<Utc>) -> Expiry {
        let mut over: Vec<(DateTime<Utc>, SocketAddr)> = self
            .backends
            .values()
            .filter(|backend| !matches!(backend.membership, Membership::Leaving { .. }))
            .filter_map(|backend| {
                backend.lease.filter(|lease| lease.is_over(now)).map(|lease| (lease.ends_at, backend.address))
            })
            .collect();
        over.sort_unstable();
        let mut expiry = Expiry::default();
        for (_, address) in over {
            let Some(backend) = self.backends.get(&address) else { continue };
            let pool = backend.pool.clone();
            let is_active = backend.membership == Membership::Active;
            let mut others = self.backends.of_model(&backend.model).filter(|other| {
                other.pool == pool && other.address != address && other.membership == Membership::Active
            });
            let is_last = is_active && others.next().is_none();
            drop(others);
            if is_last {
                expiry.kept.push((pool, address));
            } else if let Some(backend) = self.backends.get_mut(&address) {
                backend.leave(now);
                expiry.left.push((pool, address));
            }
        }
        expiry
    }

    /// The lengths of the leases of a pool's backends, in seconds by address.
    pub fn leases(&self, pool: &str) -> impl Iterator<Item = (SocketAddr, f64)> {
        self.backends
            .values()
            .filter(move |backend| backend.pool == pool)
            .filter(|backend| !matches!(backend.membership, Membership::Leaving { .. }))
            .filter_map(|backend| Some((backend.address, backend.lease?.length.as_seconds_f64())))
    }
}
