use std::convert::Infallible;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{Stream, StreamExt};
use prometheus_client::encoding::text::encode;
use serde::Deserialize;
use tokio_stream::wrappers::WatchStream;

use crate::view::DecisionView;

use super::{ApiError, ApiState};

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Ready once the first snapshot is published: before that, an Envoy would get nothing.
pub(super) async fn readyz(State(state): State<ApiState>) -> Response {
    if state.frames.borrow().is_some() {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no snapshot is published yet\n").into_response()
    }
}

pub(super) async fn metrics(State(state): State<ApiState>) -> Result<Response, ApiError> {
    let mut page = String::new();
    encode(&mut page, &state.registry).map_err(|error| ApiError::unavailable(error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], page).into_response())
}

pub(super) async fn state(State(state): State<ApiState>) -> Result<Response, ApiError> {
    let frame = state.frames.borrow().clone();
    let frame = frame.ok_or_else(|| ApiError::unavailable("no snapshot is published yet"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(frame.json())).into_response())
}

pub(super) async fn stream(
    State(state): State<ApiState>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let frames = WatchStream::new(state.frames).filter_map(async |frame| {
        let json = frame?.json();
        // serde_json writes UTF-8, so nothing is lost here.
        Some(Ok(Event::default().event("state").data(String::from_utf8_lossy(&json))))
    });
    Sse::new(frames).keep_alive(KeepAlive::default())
}

#[derive(Deserialize)]
pub(super) struct Limit {
    limit: Option<u32>,
}

/// Stored decisions, newest first.
pub(super) async fn decisions(
    State(state): State<ApiState>,
    Query(query): Query<Limit>,
) -> Result<Json<Vec<DecisionView>>, ApiError> {
    const MOST: u32 = 1000;
    let store = state.store.borrow().clone();
    let store = store.ok_or_else(|| ApiError::unavailable("the database is away"))?;
    let rows = store.decisions(query.limit.unwrap_or(50).min(MOST)).await;
    let rows = rows.map_err(|error| ApiError::unavailable(error.to_string()))?;
    Ok(Json(
        rows.into_iter()
            .map(|row| DecisionView {
                rung: row.rung(),
                id: row.id.to_string(),
                at: row.at,
                kind: row.kind,
                model: row.model,
                pool: row.pool,
                summary: row.summary,
                changes: serde_json::from_value(row.changes).unwrap_or_default(),
            })
            .collect(),
    ))
}
