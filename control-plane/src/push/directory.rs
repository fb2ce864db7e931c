use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::config::{GpuMetrics, GpuPlace, Orca, Pool};
use crate::telemetry::{ConfiguredLimits, Packs, PoolTargets};

use super::CANONICAL;
use super::access::Access;
use super::names::Names;

/// A backend whose telemetry is pushed.
#[derive(Debug)]
pub struct Member {
    /// Its address, as configured or registered.
    pub address: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// The names that its engine has.
    pub(super) packs: Arc<Packs>,
    /// What is configured of its engine's limits.
    pub(super) limits: ConfiguredLimits,
    /// Whether the gauge of its GPUs counts.
    pub(super) reads_gpu: bool,
    /// Which metrics of its answers mean what; none: they are passed over.
    pub(super) orca: Option<Arc<Orca>>,
}

/// Who goes by a name.
#[derive(Clone, Debug)]
enum Named {
    /// One member, by its index.
    One(u32),
    /// Of the backends of a host, these members; others are there, or several of these.
    Several(Vec<u32>),
}

/// Who pushes: every backend of the pools with `telemetry: push`, by each name that senders have for it. Immutable;
/// a change of the fleet is another directory.
#[derive(Debug, Default)]
pub struct Directory {
    members: Vec<Arc<Member>>,
    names: HashMap<Box<str>, Named>,
    series: Names,
    /// Members whose answers are read (ORCA).
    answering: HashSet<SocketAddr>,
}

impl Directory {
    /// Lists backends with their pools. A backend goes by its address, by the names that its pool's `instances` give it,
    /// and by its bare host where no other backend is there, or none that the sender may write to; `others` are the hosts
    /// of backends that do not push.
    pub fn new<'a>(
        backends: impl IntoIterator<Item = (SocketAddr, &'a Pool)>,
        others: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let mut directory = Self::default();
        let mut packs_of: HashMap<&str, (Arc<Packs>, ConfiguredLimits)> = HashMap::new();
        let mut hosts: HashMap<Box<str>, Named> =
            others.into_iter().map(|host| (host.to_string().into(), Named::Several(Vec::new()))).collect();
        for (address, pool) in backends {
            let Ok(index) = u32::try_from(directory.members.len()) else { break };
            let of_pool = packs_of.entry(&pool.name);
            let (packs, limits) = of_pool.or_insert_with(|| of_a_pool(pool, address));
            let member = Member {
                address: address.to_string().into(),
                pool: pool.name.as_str().into(),
                packs: Arc::clone(packs),
                limits: *limits,
                orca: pool.orca.clone().map(Arc::new),
                reads_gpu: pool.gpu_metrics != GpuMetrics::Place(GpuPlace::None),
            };
            directory.names.insert(address.to_string().into(), Named::One(index));
            for (name, _) in pool.instances.iter().filter(|(_, other)| **other == address) {
                directory.names.insert(name.as_str().into(), Named::One(index));
            }
            match hosts.entry(address.ip().to_string().into()) {
                Entry::Vacant(free) => drop(free.insert(Named::One(index))),
                Entry::Occupied(mut taken) => match taken.get_mut() {
                    Named::One(first) => {
                        let both = vec![*first, index];
                        taken.insert(Named::Several(both));
                    }
                    Named::Several(members) => members.push(index),
                },
            }
            if member.orca.is_some() {
                directory.answering.insert(address);
            }
            directory.members.push(Arc::new(member));
        }
        for (host, named) in hosts {
            directory.names.entry(host).or_insert(named);
        }
        packs_of.values().for_each(|(packs, _)| directory.series.add(packs));
        directory
    }

    /// The names of series that are read for some member.
    pub(super) fn series(&self) -> &Names {
        &self.series
    }

    /// The member that a sender means by a name; a scheme before it and a path behind it are left out. Where several go by
    /// it, those of other pools than the sender's cannot be meant.
    pub(super) fn find(&self, name: &str, access: &Access) -> Option<u32> {
        let bare = || {
            let bare = name.split_once("://").map_or(name, |(_, rest)| rest);
            bare.split('/').next().unwrap_or(bare)
        };
        match self.names.get(name).or_else(|| self.names.get(bare()))? {
            Named::One(index) => Some(*index),
            // Who may write to all pools may mean any of them.
            Named::Several(_) if *access == Access::All => None,
            Named::Several(members) => {
                let may =
                    |index: &&u32| self.member(**index).is_some_and(|member| access.covers(&member.pool));
                let mut own = members.iter().filter(may);
                own.next().copied().filter(|_| own.next().is_none())
            }
        }
    }

    pub(super) fn member(&self, index: u32) -> Option<&Arc<Member>> {
        self.members.get(index as usize)
    }

    /// The member that is in another directory, as it is here; none when it is gone.
    pub(super) fn same<'a>(&'a self, other: &Self, member: &'a Arc<Member>) -> Option<&'a Arc<Member>> {
        if std::ptr::eq(self, other) {
            return Some(member);
        }
        let Some(Named::One(index)) = self.names.get(&*member.address) else { return None };
        self.member(*index).filter(|found| found.address == member.address)
    }

    /// Whether what a backend says of itself in its answers is read.
    pub fn reads_orca(&self, address: SocketAddr) -> bool {
        self.answering.contains(&address)
    }

    /// All members.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }
}

/// The names by which a pool's telemetry is read, those of its engine and its own and those of plain JSON, and its limits.
fn of_a_pool(pool: &Pool, address: SocketAddr) -> (Arc<Packs>, ConfiguredLimits) {
    let target = PoolTargets::new(pool).target(address);
    (Arc::new(Packs::with_beside(&target.names, &CANONICAL)), target.limits)
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    use super::*;

    #[test]
    fn backends_go_by_address_name_and_lonely_host() {
        let config = parse(
            r#"
telemetry: { push: { http: 127.0.0.1:4318 } }
models: [{ name: m, pools: [p] }]
pools:
  - { name: p, telemetry: push, backends: ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.2:8001", "10.0.0.4:8000"],
      instances: { vllm-0: "10.0.0.1:8000", "gpu2:8000": "10.0.0.2:8001" } }
"#,
        )
        .unwrap();
        let pool = &config.pools[0];
        let directory = Directory::new(
            pool.backends.iter().map(|address| (*address, pool)),
            ["10.0.0.4".parse().unwrap()],
        );
        for (name, index) in [
            ("10.0.0.1:8000", Some(0)),
            ("http://10.0.0.1:8000/metrics", Some(0)),
            ("vllm-0", Some(0)),
            ("10.0.0.1", Some(0)),
            ("10.0.0.2:8001", Some(2)),
            ("gpu2:8000", Some(2)),
            ("10.0.0.2", None),
            ("10.0.0.3:8000", None),
            ("10.0.0.4:8000", Some(3)),
            ("10.0.0.4", None),
            ("", None),
        ] {
            assert_eq!(directory.find(name, &Access::All), index, "{name}");
        }
    }

    #[test]
    fn a_host_that_pools_share_is_that_of_the_senders_pool() {
        let config = parse(
            r#"
telemetry: { push: { http: 127.0.0.1:4318 } }
models: [{ name: m, pools: [p, q] }]
pools:
  - { name: p, telemetry: push, backends: ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.2:8001"] }
  - { name: q, telemetry: push, backends: ["10.0.0.1:9000", "10.0.0.3:9000"] }
"#,
        )
        .unwrap();
        let pools = config.pools.iter();
        let backends = pools.flat_map(|pool| pool.backends.iter().map(move |address| (*address, pool)));
        let directory = Directory::new(backends, ["10.0.0.3".parse().unwrap()]);
        let of =
            |pools: &[&str]| Access::Pools(Arc::new(pools.iter().map(|pool| (*pool).to_owned()).collect()));
        for (name, pools, address) in [
            ("10.0.0.1", &["p"][..], Some("10.0.0.1:8000")),
            ("http://10.0.0.1/metrics", &["q"], Some("10.0.0.1:9000")),
            ("10.0.0.1", &["p", "q"], None),
            ("10.0.0.2", &["p"], None),
            ("10.0.0.2", &["q"], None),
            ("10.0.0.3", &["q"], Some("10.0.0.3:9000")),
            ("10.0.0.3", &["p"], None),
        ] {
            let found = directory.find(name, &of(pools)).and_then(|index| directory.member(index));
            assert_eq!(found.map(|member| &*member.address), address, "{name} {pools:?}");
            assert_eq!(directory.find(name, &Access::All), None, "{name}");
        }
    }
}
