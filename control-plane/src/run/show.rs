use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use clairvoy_forecaster::{CapacityEstimate, WaitForecast};
use clairvoy_xds::{ClientStatus, Quarantined, ResourceType, SyncState};

use crate::config::{Model, Rung};
use crate::decide::{BackendShare, Certainty, Mix, Profile};
use crate::envoy::parts_of_group;
use crate::fleet::{Backend, Findings, Health, Membership};
use crate::view::{
    AnomalyView, BackendState, BackendView, CapacityView, NackView, ProfileView, ProxyState, ProxyView,
    QuarantineView, State,
};

/// One picture of the state, encoded at most once however many look at it.
#[derive(Debug)]
pub struct Frame {
    /// The picture.
    pub state: State,
    json: OnceLock<Bytes>,
}

impl Frame {
    /// A frame of a state.
    pub fn new(state: State) -> Self {
        Self { state, json: OnceLock::new() }
    }

    /// The state as one line of JSON.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| serde_json::to_vec(&self.state).unwrap_or_default().into()).clone()
    }
}

pub(super) fn backend(
    backend: &Backend,
    decided: Option<&BackendShare>,
    zone: &str,
    capacity_rps: Option<f64>,
    model: Option<&Model>,
    mix: &Mix,
    now: DateTime<Utc>,
) -> BackendView {
    let sample = backend.sample.as_ref();
    let state = match (backend.membership, backend.health(now)) {
        (Membership::Draining { .. } | Membership::Leaving { .. }, _) => BackendState::Draining,
        (Membership::Active, Health::Ready) => BackendState::Ready,
        (Membership::Active, Health::Waiting) => BackendState::Waiting,
        (Membership::Active, Health::Stale) => BackendState::Stale,
        (Membership::Active, Health::Down) => BackendState::Down,
    };
    let reason = match (backend.trouble(now), decided) {
        (Some(trouble), _) => trouble,
        (None, Some(decided)) => decided.reason.clone(),
        (None, None) => String::new(),
    };
    let follows = model.is_none_or(Model::follows_decisions);
    let advises = model.is_some_and(|model| model.rung == Rung::Advise);
    BackendView {
        address: backend.address.to_string(),
        model: backend.model.clone(),
        pool: backend.pool.clone(),
        zone: zone.to_owned(),
        group: decided.map_or_else(|| backend.pool.clone(), |decided| decided.group.clone()),
        origin: backend.origin.name().to_owned(),
        lease_seconds: backend.lease.map(|lease| lease.length.as_seconds_f64()),
        lease_remaining_seconds: backend.lease.map(|lease| lease.remaining_seconds(now)),
        state,
        queue_depth: sample.and_then(|sample| sample.queue_depth),
        running: sample.and_then(|sample| sample.running),
        kv_used: sample.and_then(|sample| sample.kv_used),
        gpu_utilisation: sample.and_then(|sample| sample.gpu_utilisation),
        ttft_seconds: backend.ttft_seconds,
        inter_token_seconds: sample.and_then(|sample| sample.inter_token_seconds),
        requests_in_progress: None,
        first_byte_seconds: backend.gateway.first_bytes.map(|first| first.mean_seconds),
        first_byte_p95_seconds: backend.gateway.first_bytes.map(|first| first.p95_seconds),
        response_seconds: backend.gateway.response_seconds(),
        gateway_requests: backend.gateway.requests,
        gateway_errors: backend.gateway.errors,
        gateway_responses: backend.gateway.responses.count,
        gateway_responses_seconds: backend.gateway.responses.sum_seconds,
        gateway_prompt_tokens: backend.gateway.tokens.prompt,
        gateway_output_tokens: backend.gateway.tokens.output,
        predicted_wait_seconds: backend.predicted_wait_seconds(),
        predicted_wait_upper_seconds: backend.wait.as_ref().and_then(WaitForecast::known_upper_seconds),
        wait_source: backend.wait.as_ref().map_or("none", WaitForecast::source_name).to_owned(),
        capacity_rps,
        capacity: capacity(backend.slo_capacity),
        anomaly: backend.findings.as_ref().map(anomaly),
        verdict: backend.judged().verdict().name().to_owned(),
        profile: backend.profile().map(|known| profile(&known, backend, mix)),
        slowdown: backend.slowdown(),
        share: decided.map_or(0.0, |decided| if follows { decided.share } else { decided.capacity_share }),
        advised_share: decided.filter(|_| advises).map(|decided| decided.share),
        capacity_share: decided.map_or(0.0, |decided| decided.capacity_share),
        telemetry_age_seconds: backend.age_seconds(now),
        telemetry_faults: backend.telemetry_faults.iter().map(ToString::to_string).collect(),
        reason,
    }
}

fn profile(known: &Profile, backend: &Backend, mix: &Mix) -> ProfileView {
    let Certainty { observations, relative_error } = backend.certainty();
    ProfileView {
        fixed_seconds: known.fixed_seconds,
        per_sequence_seconds: known.per_sequence_seconds,
        per_prompt_token_seconds: known.per_prompt_token_seconds,
        per_kv_token_seconds: known.per_kv_token_seconds,
        max_sequences: known.max_sequences,
        kv_tokens: known.kv_tokens,
        token_budget: known.token_budget,
        capacity_rps: known.capacity_rps(mix),
        observations,
        relative_error,
    }
}

fn capacity(estimate: CapacityEstimate) -> Option<CapacityView> {
    let (lower_rps, rps, upper_rps) = match estimate {
        CapacityEstimate::Unknown => return None,
        CapacityEstimate::Below { rps } => (None, None, Some(rps)),
        CapacityEstimate::AtLeast { rps } => (Some(rps), None, None),
        CapacityEstimate::Known { rps, lower_rps, upper_rps } => {
            (Some(lower_rps), Some(rps), Some(upper_rps))
        }
    };
    Some(CapacityView { rps, lower_rps, upper_rps })
}

fn anomaly(findings: &Findings) -> AnomalyView {
    let worst = findings.anomalies.first();
    AnomalyView {
        score: findings.score,
        kind: worst.map(|anomaly| anomaly.kind.name().to_owned()),
        reason: worst.map(|anomaly| anomaly.reason.clone()),
    }
}

pub(super) fn quarantined(held: &Quarantined) -> QuarantineView {
    let (gateway, zone) = parts_of_group(&held.group);
    QuarantineView {
        gateway: gateway.to_owned(),
        zone: zone.map(str::to_owned),
        kind: held.resource_type.to_string(),
        resource: held.resource.to_string(),
        since: held.since.into(),
    }
}

/// Whether a client asks for resources of a type.
pub(super) fn takes(client: &ClientStatus, wanted: ResourceType) -> bool {
    client.types.iter().any(|(resource_type, status)| *resource_type == wanted && status.subscribed)
}

pub(super) fn proxy(client: &ClientStatus) -> ProxyView {
    let time = |at: SystemTime| DateTime::<Utc>::from(at);
    ProxyView {
        node_id: client.node_id.clone(),
        cluster: client.node_cluster.clone(),
        zone: client.zone.clone(),
        connected_at: time(client.connected_at),
        state: match client.sync {
            SyncState::InSync => ProxyState::InSync,
            SyncState::Pending => ProxyState::Pending,
            SyncState::Nacked => ProxyState::Nacked,
        },
        acks: client.acks(),
        nacks: client.types.iter().map(|(_, status)| status.nacks).sum(),
        resources_sent: client
            .types
            .iter()
            .filter(|(resource_type, _)| *resource_type != ResourceType::Runtime)
            .map(|(_, status)| status.resources_sent)
            .sum(),
        takes_predictions: takes(client, ResourceType::Runtime),
        last_nack: client.last_nack.as_ref().map(|nack| NackView {
            kind: nack.resource_type.to_string(),
            resources: nack.resources.clone(),
            message: nack.message.clone(),
            at: time(nack.at),
        }),
    }
}
