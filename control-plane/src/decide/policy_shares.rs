use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::shares::normalised;

/// Part of the way to the wanted shares that is gone with each evaluation: response times of a few answers jump.
const SMOOTHING: f64 = 0.1;
/// Nobody gets less than this part of what the fastest gets, so that it still shows how fast it is.
const LEAST_OF_FASTEST: f64 = 0.05;

/// What the weights of single backends go by, where Envoy balances by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighing {
    /// All alike.
    Equal,
    /// In proportion to capacity.
    Capacity,
    /// In inverse proportion to how long answers took of late.
    ResponseTime,
}

/// One backend, as far as such weights go by it.
#[derive(Clone, Copy, Debug)]
pub struct Weighed {
    /// Its address.
    pub address: SocketAddr,
    /// Requests/s that it serves; more than 0.
    pub capacity_rps: f64,
    /// Mean time of its answers of late, seconds; none before the first.
    pub response_seconds: Option<f64>,
}

/// The share of each backend, 0 to 1, together 1.
///
/// Shares by response time go a step from `previous` towards what is wanted; a backend that has not answered yet counts
/// as the median of the others.
pub fn policy_shares(
    backends: &[Weighed],
    weighing: Weighing,
    previous: &BTreeMap<SocketAddr, f64>,
) -> BTreeMap<SocketAddr, f64> {
    let weights: Vec<f64> = match weighing {
        Weighing::Equal => vec![1.0; backends.len()],
        Weighing::Capacity => {
            backends.iter().map(|backend| usable(backend.capacity_rps).unwrap_or(0.0)).collect()
        }
        Weighing::ResponseTime => by_response_time(backends),
    };
    let wanted = normalised(&weights);
    let steps = weighing == Weighing::ResponseTime
        && backends.iter().any(|backend| previous.contains_key(&backend.address));
    let shares: Vec<f64> = if steps {
        let stepped: Vec<f64> = backends
            .iter()
            .zip(&wanted)
            .map(|(backend, wanted)| {
                let before = previous.get(&backend.address).copied().unwrap_or(*wanted);
                before + SMOOTHING * (wanted - before)
            })
            .collect();
        normalised(&stepped)
    } else {
        wanted
    };
    backends.iter().map(|backend| backend.address).zip(shares).collect()
}

fn by_response_time(backends: &[Weighed]) -> Vec<f64> {
    let known = |backend: &Weighed| backend.response_seconds.and_then(usable);
    let mut sorted: Vec<f64> = backends.iter().filter_map(known).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(fastest) = sorted.first().copied() else { return vec![1.0; backends.len()] };
    let median = sorted[sorted.len() / 2];
    backends
        .iter()
        .map(|backend| (fastest / known(backend).unwrap_or(median)).max(LEAST_OF_FASTEST))
        .collect()
}

fn usable(value: f64) -> Option<f64> {
    (value.is_normal() && value > 0.0).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backends(values: &[(f64, Option<f64>)]) -> Vec<Weighed> {
        let numbered = (1_u16..).zip(values);
        numbered
            .map(|(port, (capacity_rps, response_seconds))| Weighed {
                address: SocketAddr::from(([10, 0, 0, 1], port)),
                capacity_rps: *capacity_rps,
                response_seconds: *response_seconds,
            })
            .collect()
    }

    fn shares(values: &[(f64, Option<f64>)], weighing: Weighing) -> Vec<f64> {
        policy_shares(&backends(values), weighing, &BTreeMap::new()).into_values().collect()
    }

    #[test]
    fn each_weighing_does_as_it_says() {
        let values = [(6.0, Some(1.0)), (3.0, Some(2.0)), (1.0, None)];
        assert_eq!(shares(&values, Weighing::Equal), [1.0 / 3.0; 3]);
        let capacity = shares(&values, Weighing::Capacity);
        assert!((capacity[0] - 0.6).abs() < 1e-9 && (capacity[2] - 0.1).abs() < 1e-9, "{capacity:?}");
        assert_eq!(
            shares(&values, Weighing::ResponseTime),
            [0.5, 0.25, 0.25],
            "the last counts as the median"
        );
        let far = shares(&[(1.0, Some(0.1)), (1.0, Some(100.0))], Weighing::ResponseTime);
        assert!((far[1] / far[0] - LEAST_OF_FASTEST).abs() < 1e-9, "{far:?}");
    }

    #[test]
    fn shares_by_response_time_go_step_by_step() {
        let values = backends(&[(1.0, Some(1.0)), (1.0, Some(4.0))]);
        let mut shares = policy_shares(&values, Weighing::Equal, &BTreeMap::new());
        let mut before = shares[&values[1].address];
        for _ in 0..60 {
            shares = policy_shares(&values, Weighing::ResponseTime, &shares);
            let now = shares[&values[1].address];
            assert!(now <= before && before - now <= 0.05);
            before = now;
        }
        assert!((before - 0.2).abs() < 0.01, "{before}");
    }

    proptest! {
        #[test]
        fn whatever_is_told_shares_are_shares(
            values in prop::collection::vec((any::<f64>(), prop::option::of(any::<f64>())), 1..20),
            weighing in prop::sample::select(vec![Weighing::Equal, Weighing::Capacity, Weighing::ResponseTime]),
        ) {
            let shares = shares(&values, weighing);
            prop_assert!(shares.iter().all(|share| share.is_finite() && *share >= 0.0));
            prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }
}
