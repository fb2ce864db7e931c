use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What the plan sees of one pool of a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolInput {
    /// The pool's name.
    pub pool: String,
    /// Replicas that are meant to serve.
    pub present: u32,
    /// Requests/s of one replica; none while unknown.
    pub capacity_rps: Option<f64>,
    /// Bounds.
    pub min: u32,
    /// Bounds.
    pub max: u32,
    /// Demand at now + cold start by the forecast, requests/s; none without a forecast.
    pub forecast_rps: Option<f64>,
    /// Cold start, seconds.
    pub cold_start_seconds: f64,
    /// How long a smaller need has to last before the plan shrinks, seconds.
    pub scale_down_after_seconds: f64,
    /// Whether all backends that share the demand are seen. If not, the plan does not shrink.
    pub demand_is_complete: bool,
    /// The plan so far; none at first.
    pub previous: Option<PoolPlan>,
}

/// How many replicas one pool should have.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolPlan {
    /// The pool's name.
    pub pool: String,
    /// Replicas to have: the larger need, within bounds.
    pub replicas: u32,
    /// Replicas that the present load needs.
    pub needed_now: u32,
    /// Replicas that the forecast at now + cold start needs; none without a forecast.
    pub needed_forecast: Option<u32>,
    /// Since when less than `replicas` was needed.
    pub lower_since: Option<DateTime<Utc>>,
    /// The most that was needed since then.
    pub lower_need: u32,
    /// The reason, in words.
    pub reason: String,
}

/// Plans the pools of one model: `max(what the load needs now, what the forecast needs at now + cold start)`.
///
/// Pools are filled in the given order and emptied in the reverse one. `target` is the utilisation to aim at, 0 to 1.
pub fn plan_replicas(pools: &[PoolInput], demand_rps: f64, target: f64, now: DateTime<Utc>) -> Vec<PoolPlan> {
    let current: Vec<u32> =
        pools.iter().map(|pool| pool.previous.as_ref().map_or(pool.present, |plan| plan.replicas)).collect();
    let for_now = allot(pools, &current, demand_rps / target);
    pools
        .iter()
        .enumerate()
        .map(|(index, pool)| {
            let needed_now = for_now[index];
            // Each pool is asked at its own cold start: what starts slowly has to be asked for earlier.
            let needed_forecast = pool.forecast_rps.map(|rps| allot(pools, &current, rps / target)[index]);
            plan(pool, needed_now, needed_forecast, demand_rps, now)
        })
        .collect()
}

/// Replicas by pool that carry `capacity_rps`, with as little change from `current` as possible.
fn allot(pools: &[PoolInput], current: &[u32], capacity_rps: f64) -> Vec<u32> {
    let mut counts: Vec<u32> =
        pools.iter().zip(current).map(|(pool, count)| (*count).clamp(pool.min, pool.max)).collect();
    let each = |index: usize| pools[index].capacity_rps.unwrap_or(0.0);
    let mut have: f64 = (0..pools.len()).map(|index| f64::from(counts[index]) * each(index)).sum();
    for (index, pool) in pools.iter().enumerate() {
        while have < capacity_rps && counts[index] < pool.max && each(index) > 0.0 {
            counts[index] += 1;
            have += each(index);
        }
    }
    for (index, pool) in pools.iter().enumerate().rev() {
        while counts[index] > pool.min && each(index) > 0.0 && have - each(index) >= capacity_rps {
            counts[index] -= 1;
            have -= each(index);
        }
    }
    counts
}

fn plan(
    pool: &PoolInput,
    needed_now: u32,
    needed_forecast: Option<u32>,
    demand_rps: f64,
    now: DateTime<Utc>,
) -> PoolPlan {
    let needed = needed_now.max(needed_forecast.unwrap_or(0));
    let before = pool.previous.as_ref();
    let held = before.map_or(pool.present, |plan| plan.replicas).clamp(pool.min, pool.max);
    let is_lower = needed < held && pool.demand_is_complete;
    let since = before.filter(|plan| plan.lower_since.is_some());
    let lower_since = is_lower.then(|| since.and_then(|plan| plan.lower_since).unwrap_or(now));
    let lower_need = if is_lower { since.map_or(needed, |plan| plan.lower_need.max(needed)) } else { needed };
    let lasted = lower_since.map_or(0.0, |since| (now - since).as_seconds_f64());
    let (replicas, lower_since) = if needed >= held {
        (needed, None)
    } else if is_lower && lasted >= pool.scale_down_after_seconds {
        // Not what is needed at this instant: the most that was needed while it was less.
        (lower_need, None)
    } else {
        (held, lower_since)
    };
    let reason = if pool.capacity_rps.is_none() {
        "the capacity of a replica is not known yet".to_owned()
    } else if replicas > needed && !pool.demand_is_complete {
        "some backends are silent: the demand is not known whole".to_owned()
    } else if replicas > needed {
        format!("{needed} would do since {lasted:.0} s; smaller after {:.0} s", pool.scale_down_after_seconds)
    } else if needed_forecast.is_some_and(|forecast| forecast > needed_now) {
        let rps = pool.forecast_rps.unwrap_or_default();
        format!("forecast of {rps:.1} requests/s in {:.0} s, {demand_rps:.1} now", pool.cold_start_seconds)
    } else {
        format!("load of {demand_rps:.1} requests/s now")
    };
    PoolPlan {
        pool: pool.pool.clone(),
        replicas,
        needed_now,
        needed_forecast,
        lower_since,
        lower_need,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::{PoolInput, PoolPlan, plan_replicas};

    fn pool(name: &str, present: u32, forecast: Option<f64>) -> PoolInput {
        PoolInput {
            pool: name.to_owned(),
            present,
            capacity_rps: Some(5.0),
            min: 1,
            max: 4,
            forecast_rps: forecast,
            cold_start_seconds: 60.0,
            scale_down_after_seconds: 30.0,
            demand_is_complete: true,
            previous: None,
        }
    }

    fn counts(plans: &[PoolPlan]) -> Vec<u32> {
        plans.iter().map(|plan| plan.replicas).collect()
    }

    #[test]
    fn the_forecast_asks_before_the_load_does() {
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let plans = plan_replicas(&[pool("a", 2, Some(11.0)), pool("b", 1, Some(11.0))], 6.0, 0.8, now);
        assert_eq!(counts(&plans), [2, 1], "three times five carries 11 / 0.8");
        let plans = plan_replicas(&[pool("a", 2, Some(14.0)), pool("b", 1, Some(14.0))], 6.0, 0.8, now);
        assert_eq!(counts(&plans), [3, 1]);
        assert_eq!(plans[0].needed_now, 1);
        assert!(plans[0].reason.contains("forecast of 14.0"), "{}", plans[0].reason);
    }

    #[test]
    fn the_reactive_floor_holds_without_and_against_the_forecast() {
        let now = DateTime::<Utc>::UNIX_EPOCH;
        for forecast in [None, Some(0.0)] {
            assert_eq!(counts(&plan_replicas(&[pool("a", 1, forecast)], 14.0, 0.8, now)), [4]);
        }
        assert_eq!(counts(&plan_replicas(&[pool("a", 1, None)], 1000.0, 0.8, now)), [4], "never above max");
    }

    #[test]
    fn fewer_only_after_the_need_was_lower_for_long_enough() {
        let start = DateTime::<Utc>::UNIX_EPOCH;
        let mut input = pool("a", 4, Some(1.0));
        let mut seen = Vec::new();
        for second in 0..40 {
            let plans =
                plan_replicas(std::slice::from_ref(&input), 1.0, 0.8, start + TimeDelta::seconds(second));
            seen.push(plans[0].replicas);
            input.previous = Some(plans[0].clone());
        }
        assert_eq!(seen.iter().position(|count| *count < 4), Some(30));
        assert_eq!(seen.last(), Some(&1));
    }

    #[test]
    fn a_plan_shrinks_to_the_most_that_was_needed_and_not_while_backends_are_silent() {
        let start = DateTime::<Utc>::UNIX_EPOCH;
        let run = |complete: bool| {
            let mut input = PoolInput { demand_is_complete: complete, ..pool("a", 4, None) };
            for second in 0..=30 {
                let demand = if second % 10 == 5 { 11.0 } else { 1.0 };
                let now = start + TimeDelta::seconds(second);
                input.previous =
                    Some(plan_replicas(std::slice::from_ref(&input), demand, 0.8, now)[0].clone());
            }
            input.previous.unwrap().replicas
        };
        assert_eq!(run(true), 3);
        assert_eq!(run(false), 4);
    }

    #[test]
    fn an_unknown_capacity_changes_nothing() {
        let mut input = pool("a", 2, Some(100.0));
        input.capacity_rps = None;
        let plans = plan_replicas(&[input], 100.0, 0.8, DateTime::<Utc>::UNIX_EPOCH);
        assert_eq!(counts(&plans), [2]);
    }
}
