//! API: health, metrics, the live state, history, registration of backends, and the dashboard.
//!
//! Everything but `/healthz`, `/readyz` and the files of the dashboard, which hold no data, asks for the token when one
//! is configured: as a bearer token, or as the password of HTTP basic authentication. The dashboard asks its user for it. Without a token the API listens on loopback
//! only, and a page of another site cannot use it through the user's browser.

mod assets;
mod auth;
mod backends;
mod canary;
mod demand;
mod error;
mod history;
mod live;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::config::Config;
use crate::discovery::DiscoveryMetrics;
use crate::run::{Command, Frame};
use crate::store::Store;

pub use auth::{BoundToken, Token};
pub use error::ApiError;

/// Largest body of a request; a year of one-minute demand of ten models fits.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Largest body of a registration.
const MAX_REGISTRATION_BYTES: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// What the handlers share.
#[derive(Clone)]
pub struct ApiState {
    /// The live picture; none before the first snapshot is published.
    pub frames: watch::Receiver<Option<Arc<Frame>>>,
    /// The way to the controller.
    pub commands: mpsc::Sender<Command>,
    /// The database; none while it is away at start.
    pub store: watch::Receiver<Option<Store>>,
    /// Where all metrics are registered.
    pub registry: Arc<Registry>,
    /// The newest configuration.
    pub config: Arc<ArcSwap<Config>>,
    /// The token, when one is configured.
    pub token: Option<Token>,
    /// Tokens for the backends of some pools only.
    pub pool_tokens: Arc<[BoundToken]>,
    /// Where requests are counted that never reach the controller.
    pub(crate) discovery: DiscoveryMetrics,
}

/// All routes.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/api/v1/state", get(live::state))
        .route("/api/v1/stream", get(live::stream))
        .route("/api/v1/decisions", get(live::decisions))
        .route("/api/v1/demand", get(demand::read).post(demand::import))
        .route("/api/v1/history", get(history::read))
        .route(
            "/api/v1/pools/{pool}/backends",
            get(backends::list)
                .post(backends::register)
                .put(backends::register)
                .layer(DefaultBodyLimit::max(MAX_REGISTRATION_BYTES)),
        )
        .route("/api/v1/pools/{pool}/backends/{address}/drain", post(backends::drain))
        .route("/api/v1/pools/{pool}/backends/{address}", delete(backends::remove))
        .route("/api/v1/models/{model}/canary/resume", post(canary::resume))
        .route("/metrics", get(live::metrics))
        .layer(axum::middleware::from_fn_with_state(state.clone(), auth::check))
        .fallback(get(assets::serve))
        .route("/healthz", get(live::healthz))
        .route("/readyz", get(live::readyz))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(RequestBodyTimeoutLayer::new(BODY_TIMEOUT))
        .with_state(state)
}
