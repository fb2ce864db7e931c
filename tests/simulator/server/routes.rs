//! The HTTP endpoints.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::engine::SubmitError;

use super::answer::{Answer, Endpoint};
use super::core::Core;
use super::openai::{ApiError, CompletionRequest};
use super::{Faults, ServerState, orca};

/// The version is that of the Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A prompt of the longest context takes half a megabyte.
const BODY_LIMIT_BYTES: usize = 8 << 20;
const HUGE_PAGE_BYTES: usize = 100_000_000;
const HUGE_CHUNK_BYTES: usize = 64 * 1024;

/// Names the server that answered.
const ADDRESS_HEADER: &str = "x-simulator-address";

pub(super) fn router(core: Arc<Core>) -> Router {
    let address = HeaderValue::from_str(&core.address.to_string()).ok();
    Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/simulator/faults", post(set_faults))
        .route("/simulator/state", get(state))
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(middleware::map_response(move |response| name_server(response, address.clone())))
        .with_state(core)
}

async fn name_server(mut response: Response, address: Option<HeaderValue>) -> Response {
    if let Some(address) = address {
        response.headers_mut().insert(ADDRESS_HEADER, address);
    }
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static("clairvoy-simulator"));
    response
}

async fn chat(State(core): State<Arc<Core>>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    complete(core, Endpoint::Chat, &headers, &body).await
}

async fn completions(
    State(core): State<Arc<Core>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    complete(core, Endpoint::Completions, &headers, &body).await
}

async fn complete(
    core: Arc<Core>,
    endpoint: Endpoint,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, ApiError> {
    let request = CompletionRequest::parse(body)?;
    if request.model != core.model {
        return Err(ApiError::unknown_model(&request.model));
    }
    let (lengths, reason) = request.lengths(headers)?;
    if core.draw_error() {
        return Err(ApiError::internal("simulated fault: this request was chosen to fail"));
    }
    let ticket = core.submit(lengths, reason).map_err(|error| match error {
        SubmitError::TooLong { .. } => ApiError::too_long(error.to_string()),
        SubmitError::QueueFull { .. } => ApiError::overloaded(error.to_string()),
    })?;
    let include_usage = request.include_usage();
    let mut answer =
        Answer::new(endpoint, request.model, lengths.prompt_tokens, reason, include_usage, ticket);
    let mut response = if request.stream {
        // A healthy server sends the headers of a stream at once; a hanging one sends nothing at all.
        if core.faults().hang {
            answer.first_token().await;
        }
        answer.stream()
    } else {
        answer.whole().await?
    };
    response.headers_mut().extend(orca::header(&core, headers));
    Ok(response)
}

async fn models(State(core): State<Arc<Core>>) -> Json<Value> {
    let model = json!({
        "id": core.model,
        "object": "model",
        "created": core.started_at_unix_seconds as u64,
        "owned_by": "simulated",
        "max_model_len": core.context_tokens(),
    });
    Json(json!({ "object": "list", "data": [model] }))
}

async fn health(State(core): State<Arc<Core>>) -> StatusCode {
    if core.faults().health_hang {
        return pending().await;
    }
    StatusCode::OK
}

async fn metrics(State(core): State<Arc<Core>>) -> Response {
    let faults = core.faults();
    if faults.metrics_hang {
        return pending().await;
    }
    let body = if faults.metrics_huge { huge_page() } else { core.page().into() };
    ([(header::CONTENT_TYPE, METRICS_TYPE)], body).into_response()
}

/// Well-formed, and far longer than anyone should read.
fn huge_page() -> Body {
    let line = "simulator_filler{reason=\"this page is long on purpose\"} 0\n";
    let chunk = Bytes::from(line.repeat(HUGE_CHUNK_BYTES / line.len() + 1));
    let chunks = HUGE_PAGE_BYTES.div_ceil(chunk.len());
    Body::from_stream(stream::repeat(chunk).take(chunks).map(Ok::<Bytes, Infallible>))
}

async fn set_faults(State(core): State<Arc<Core>>, body: Bytes) -> Result<Json<Faults>, ApiError> {
    let faults: Faults = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad_request(format!("cannot read the faults: {error}")))?;
    core.set_faults(faults).map_err(|error| ApiError::bad_request(error.to_string()))?;
    tracing::info!(?faults, "faults set");
    Ok(Json(faults))
}

async fn state(State(core): State<Arc<Core>>) -> Json<ServerState> {
    Json(core.state())
}
