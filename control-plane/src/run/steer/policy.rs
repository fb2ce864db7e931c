use std::collections::BTreeMap;

use crate::config::{Balance, Policy};
use crate::decide::{
    BackendShare, ENDPOINT_WEIGHTS, Form, GroupShare, ModelInput, Terms, Weighed, Weighing, WeightDecision,
    WeightState, capacity_shares, moved, policy_shares, whole_weights,
};
use crate::fleet::Backend;

/// Learned capacities waver, and what goes by a hash moves with its weights: shares by capacity are published anew when this
/// part of the traffic would move.
const CAPACITY_DEAD_BAND: f64 = 0.05;

/// The shares of a model that is not balanced by prediction: a group for each pool, and weights for their backends.
pub(super) fn decide_by_policy(
    policy: Policy,
    model: &ModelInput,
    serving: &[&Backend],
    previous: &WeightState,
    balance: &Balance,
) -> WeightDecision {
    let by_capacity = capacity_shares(model);
    let weighing = weighing(policy);
    let weighed: Vec<Weighed> = serving
        .iter()
        .map(|backend| Weighed {
            address: backend.address,
            capacity_rps: by_capacity.get(&backend.address).copied().unwrap_or_default(),
            response_seconds: backend.gateway.response_seconds(),
        })
        .collect();
    let shares = policy_shares(&weighed, weighing, &previous.shares);
    let weights = match weighing {
        Weighing::Equal => vec![1; shares.len()],
        Weighing::Capacity | Weighing::ResponseTime => {
            whole_weights(&shares.values().copied().collect::<Vec<_>>(), ENDPOINT_WEIGHTS)
        }
    };
    let pools: BTreeMap<_, _> = model.backends.iter().map(|backend| (backend.address, backend)).collect();
    let mut groups = BTreeMap::<&str, GroupShare>::new();
    let mut backends = Vec::with_capacity(shares.len());
    let by_address: BTreeMap<_, _> = weighed.iter().map(|backend| (backend.address, backend)).collect();
    for ((address, share), weight) in shares.iter().zip(weights) {
        let (Some(backend), Some(weighed)) = (pools.get(address), by_address.get(address)) else { continue };
        let group = groups.entry(&backend.pool).or_insert_with(|| GroupShare {
            group: backend.pool.clone(),
            pool: backend.pool.clone(),
            zone: backend.zone.clone(),
            members: Vec::new(),
            share: 0.0,
        });
        group.members.push(*address);
        group.share += share;
        backends.push(BackendShare {
            address: *address,
            group: backend.pool.clone(),
            share: *share,
            capacity_share: by_capacity.get(address).copied().unwrap_or_default(),
            terms: Terms { wanted_share: *share, smoothed_share: *share, ..Terms::default() },
            weight,
            reason: reason(weighing, weighed),
        });
    }
    let dead_band = if weighing == Weighing::Capacity { CAPACITY_DEAD_BAND } else { balance.dead_band };
    let form = if policy.has_groups() { Form::Groups } else { Form::Endpoints };
    let publish =
        form != previous.form || moved(&shares, &previous.published) >= dead_band.max(f64::MIN_POSITIVE);
    let published = if publish { shares.clone() } else { previous.published.clone() };
    WeightDecision {
        state: WeightState { shares, published, form, ..WeightState::default() },
        backends,
        groups: groups.into_values().collect(),
        level_seconds: None,
        form,
        publish,
    }
}

fn weighing(policy: Policy) -> Weighing {
    match policy {
        Policy::RoundRobin | Policy::LeastRequest | Policy::Random => Weighing::Equal,
        Policy::LeastResponseTime => Weighing::ResponseTime,
        Policy::Predictive
        | Policy::Static
        | Policy::WeightedRoundRobin
        | Policy::WeightedLeastRequest
        | Policy::RingHash
        | Policy::Maglev
        | Policy::Orca => Weighing::Capacity,
    }
}

fn reason(weighing: Weighing, backend: &Weighed) -> String {
    match (weighing, backend.response_seconds) {
        (Weighing::Equal, _) => "all backends alike".to_owned(),
        (Weighing::Capacity, _) => "capacity share".to_owned(),
        (Weighing::ResponseTime, Some(seconds)) => format!("answers took {seconds:.2} s of late"),
        (Weighing::ResponseTime, None) => "no answer yet: as the median of the others".to_owned(),
    }
}
