use std::net::SocketAddr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State, rejection::JsonRejection};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::run::{Command, Refusal, Target};

use super::{ApiError, ApiState};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Registration {
    address: String,
}

pub(super) async fn register(
    State(state): State<ApiState>,
    Path(pool): Path<String>,
    body: Result<Json<Registration>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Json(registration) = body.map_err(|error| {
        ApiError::bad_request(format!("{}; send {{\"address\": \"ip:port\"}} as JSON", error.body_text()))
    })?;
    let address = parse(&registration.address)?;
    obey(&state, pool.clone(), address, Command::Register).await?;
    Ok((StatusCode::CREATED, Json(json!({"pool": pool, "address": address}))))
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
    let away = || ApiError::unavailable("the controller does not answer");
    state.commands.try_send(command(Target { pool, address, reply })).map_err(|_| away())?;
    let answer =
        tokio::time::timeout(ANSWER_WITHIN, answer).await.map_err(|_| away())?.map_err(|_| away())?;
    answer.map_err(|refusal| match refusal {
        Refusal::NoSuchPool(_) | Refusal::NoSuchBackend { .. } => ApiError::not_found(refusal.to_string()),
        Refusal::Taken { .. } | Refusal::Last(_) => ApiError::conflict(refusal.to_string()),
    })
}
