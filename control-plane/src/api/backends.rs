use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State, rejection::JsonRejection};
use axum::http::StatusCode;
use chrono::TimeDelta;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::config::Span;
use crate::fleet::Registration;
use crate::run::{Command, LeaseRequest, Refusal, Target};

use super::{ApiError, ApiState};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bounds of a lease: shorter ones end by a lost packet, longer ones are as good as none.
const LEASES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBackend {
    address: String,
    /// For how long; left out: without an end.
    lease: Option<Span>,
}

/// The backends of a pool, as in the state, and how finding them does.
pub(super) async fn list(
    State(state): State<ApiState>,
    Path(pool): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let frame = state.frames.borrow().clone();
    let frame = frame.ok_or_else(|| ApiError::unavailable("nothing is known yet"))?;
    let view = frame.state.pools.iter().find(|view| view.name == pool);
    let view = view.ok_or_else(|| ApiError::not_found(format!("there is no pool `{pool}`")))?;
    let backends: Vec<_> = frame.state.backends.iter().filter(|backend| backend.pool == pool).collect();
    Ok(Json(json!({"pool": pool, "discovery": view.discovery, "backends": backends})))
}

pub(super) async fn register(
    State(state): State<ApiState>,
    Path(pool): Path<String>,
    body: Result<Json<NewBackend>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (backend, address) = understood(body).inspect_err(|_| count_malformed(&state, &pool))?;
    let Some(lease) = backend.lease else {
        obey(&state, pool.clone(), address, Command::Register).await?;
        return Ok((StatusCode::CREATED, Json(json!({"pool": pool, "address": address}))));
    };
    let length = TimeDelta::from_std(lease.0).ok().filter(|_| LEASES.contains(&lease.0));
    let length = length.ok_or_else(|| {
        count_malformed(&state, &pool);
        ApiError::bad_request(format!("lease {lease}: must be 1s to 7days long"))
    })?;
    let (reply, answer) = oneshot::channel();
    let request = LeaseRequest { pool: pool.clone(), address, length, reply };
    let done = ask(&state, Command::Lease(request), answer).await?;
    let status = match done {
        Registration::New => StatusCode::CREATED,
        Registration::Renewed => StatusCode::OK,
    };
    let body = json!({"pool": pool, "address": address, "lease_seconds": lease.as_seconds()});
    Ok((status, Json(body)))
}

fn understood(body: Result<Json<NewBackend>, JsonRejection>) -> Result<(NewBackend, SocketAddr), ApiError> {
    let Json(backend) = body.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return ApiError::too_large(error.body_text());
        }
        let example = "{\"address\": \"ip:port\"} or {\"address\": \"ip:port\", \"lease\": \"30s\"}";
        ApiError::bad_request(format!("{}; send {example} as JSON", error.body_text()))
    })?;
    let address = parse(&backend.address)?;
    Ok((backend, address))
}

/// Counts a request that the controller never sees.
fn count_malformed(state: &ApiState, pool: &str) {
    let config = state.config.load();
    let pool = config.pool(pool).map(|pool| pool.name.as_str()).unwrap_or_default();
    state.discovery.registration(pool, "malformed");
}

pub(super) async fn drain(
    State(state): State<ApiState>,
    Path((pool, address)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let address = parse(&address)?;
    obey(&state, pool.clone(), address, Command::Drain).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"pool": pool, "address": address, "state": "draining"}))))
}

pub(super) async fn remove(
    State(state): State<ApiState>,
    Path((pool, address)): Path<(String, String)>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let address = parse(&address)?;
    obey(&state, pool.clone(), address, Command::Remove).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"pool": pool, "address": address, "state": "leaving"}))))
}

fn parse(text: &str) -> Result<SocketAddr, ApiError> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() != 0 && !address.ip().is_unspecified() => Ok(address),
        _ => Err(ApiError::bad_request(format!("{text:?} is no address of the form ip:port"))),
    }
}

async fn obey(
    state: &ApiState,
    pool: String,
    address: SocketAddr,
    command: impl FnOnce(Target) -> Command,
) -> Result<(), ApiError> {
    let (reply, answer) = oneshot::channel();
    ask(state, command(Target { pool, address, reply }), answer).await
}

pub(super) async fn ask<T>(
    state: &ApiState,
    command: Command,
    answer: oneshot::Receiver<Result<T, Refusal>>,
) -> Result<T, ApiError> {
    let away = || ApiError::unavailable("the controller does not answer");
    state.commands.try_send(command).map_err(|_| away())?;
    let answer =
        tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(|_| away())?.map_err(|_| away())?;
    answer.map_err(|refusal| match refusal {
        Refusal::NoSuchPool(_) | Refusal::NoSuchModel(_) | Refusal::NoSuchBackend { .. } => {
            ApiError::not_found(refusal.to_string())
        }
        Refusal::Taken { .. } | Refusal::Last(_) | Refusal::Full { .. } | Refusal::NotSteppedBack(_) => {
            ApiError::conflict(refusal.to_string())
        }
        Refusal::NotAllowed(_) => ApiError::not_allowed(refusal.to_string()),
    })
}
