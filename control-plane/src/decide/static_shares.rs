use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::capacity::fill_unknown;

/// A share has to be off by this part of it before the capacities are taken anew.
const DEAD_BAND: f64 = 0.1;
/// And this long after the last time: they are what Envoys fall back to, and have to stand still.
const LEAST_AGE: TimeDelta = TimeDelta::seconds(60);

/// A pool of a model, as its capacity share is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolCapacity {
    /// Its name.
    pub pool: String,
    /// Its backends that take requests.
    pub backends: usize,
    /// Requests/s of one of them, as configured or learned; none while it is unknown.
    pub capacity_rps: Option<f64>,
}

/// The capacities of which the shares of a model's pools are made, as they were last taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StaticCapacities {
    /// Requests/s of one backend of each pool; none where it is unknown.
    pub rps: BTreeMap<String, Option<f64>>,
    /// When they were taken.
    pub at: DateTime<Utc>,
}

impl StaticCapacities {
    /// The capacities to go by now: the ones before, unless there are other pools, or a share is off by more than a tenth
    /// and they are a minute old. A capacity that is no longer known stays.
    pub fn next(previous: Option<&Self>, pools: &[PoolCapacity], now: DateTime<Utc>) -> Self {
        let before = |pool: &str| previous.and_then(|previous| previous.rps.get(pool).copied().flatten());
        let rps = pools.iter().map(|pool| (pool.pool.clone(), pool.capacity_rps.or(before(&pool.pool))));
        let new = Self { rps: rps.collect(), at: now };
        let Some(previous) = previous.filter(|previous| previous.rps.keys().eq(new.rps.keys())) else {
            return new;
        };
        let (old_shares, shares) = (previous.shares(pools), new.shares(pools));
        let is_off = |(pool, share): (&String, &f64)| {
            (old_shares.get(pool).copied().unwrap_or(0.0) - share).abs() > DEAD_BAND * share
        };
        if (now - previous.at >= LEAST_AGE || now < previous.at) && shares.iter().any(is_off) {
            new
        } else {
            previous.clone()
        }
    }

    /// Shares of the model's traffic by pool, 0 to 1, together 1: as many requests/s as the backends that take requests
    /// can serve. What is unknown counts as the mean of what is known; nothing known, all backends are equal. None for a
    /// pool without such backends, but equal ones when no pool has any.
    pub fn shares(&self, pools: &[PoolCapacity]) -> BTreeMap<String, f64> {
        let known: Vec<_> = pools.iter().map(|pool| self.rps.get(&pool.pool).copied().flatten()).collect();
        let capacities = pools.iter().zip(fill_unknown(&known));
        let rps: Vec<f64> = capacities.map(|(pool, rps)| rps * pool.backends as f64).collect();
        let total: f64 = rps.iter().sum();
        let share = |rps: f64| if total > 0.0 { rps / total } else { 1.0 / pools.len() as f64 };
        pools.iter().zip(rps).map(|(pool, rps)| (pool.pool.clone(), share(rps))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    fn pools(all: &[(&str, usize, Option<f64>)]) -> Vec<PoolCapacity> {
        let pool = |(pool, backends, capacity_rps): &(&str, usize, Option<f64>)| PoolCapacity {
            pool: (*pool).to_owned(),
            backends: *backends,
            capacity_rps: *capacity_rps,
        };
        all.iter().map(pool).collect()
    }

    fn shares(taken: &StaticCapacities, pools: &[PoolCapacity]) -> Vec<f64> {
        taken.shares(pools).into_values().map(|share| (1000.0 * share).round() / 1000.0).collect()
    }

    #[test]
    fn shares_are_by_capacity_and_equal_while_none_is_known() {
        let unknown = pools(&[("a", 3, None), ("b", 1, None)]);
        let taken = StaticCapacities::next(None, &unknown, at(0));
        assert_eq!(shares(&taken, &unknown), [0.75, 0.25]);
        let known = pools(&[("a", 3, Some(2.0)), ("b", 1, Some(6.0))]);
        assert_eq!(shares(&StaticCapacities::next(None, &known, at(0)), &known), [0.5, 0.5]);
        let half = pools(&[("a", 1, Some(4.0)), ("b", 1, None)]);
        assert_eq!(shares(&StaticCapacities::next(None, &half, at(0)), &half), [0.5, 0.5]);
        let none = pools(&[("a", 0, Some(4.0)), ("b", 0, Some(1.0))]);
        assert_eq!(shares(&StaticCapacities::next(None, &none, at(0)), &none), [0.5, 0.5]);
    }

    #[test]
    fn they_follow_members_at_once_and_capacities_seldom() {
        let with = |b| pools(&[("a", 1, Some(4.0)), ("b", 1, Some(b))]);
        let first = StaticCapacities::next(None, &with(4.0), at(0));
        assert_eq!(StaticCapacities::next(Some(&first), &with(12.0), at(59)), first, "not so soon");
        assert_eq!(StaticCapacities::next(Some(&first), &with(4.4), at(600)), first, "not by so little");
        let next = StaticCapacities::next(Some(&first), &with(12.0), at(60));
        assert_eq!((shares(&next, &with(12.0)), next.at), (vec![0.25, 0.75], at(60)));
        // One more backend counts at once, by the capacities as they are; so does another pool.
        let more = pools(&[("a", 3, Some(4.0)), ("b", 1, Some(12.0))]);
        let same = StaticCapacities::next(Some(&first), &more, at(1));
        assert_eq!((same.at, shares(&same, &more)), (at(0), vec![0.75, 0.25]));
        let third = pools(&[("a", 1, Some(4.0)), ("b", 1, Some(4.0)), ("c", 1, Some(8.0))]);
        let next = StaticCapacities::next(Some(&first), &third, at(1));
        assert_eq!(shares(&next, &third), [0.25, 0.25, 0.5]);
        // What was learned once is not forgotten by a restart of the learning.
        let unlearned = pools(&[("a", 1, None), ("b", 1, None), ("c", 1, None)]);
        assert_eq!(StaticCapacities::next(Some(&next), &unlearned, at(900)), next);
    }
}
