use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::run::{Command, Resumption};

use super::backends::ask;
use super::{ApiError, ApiState};

/// Has predictions steer the canary of a model again. A `/` in the model's name is written `%2F`.
pub(super) async fn resume(
    State(state): State<ApiState>,
    Path(model): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let (reply, answer) = oneshot::channel();
    let resumption = Resumption { model: model.clone(), reply };
    ask(&state, Command::ResumeCanary(resumption), answer).await?;
    Ok((StatusCode::ACCEPTED, Json(json!({"model": model, "canary": "resumed"}))))
}
