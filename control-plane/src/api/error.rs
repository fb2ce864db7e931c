use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An error answer: a status, and a JSON body that says what is wrong.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
}

impl ApiError {
    /// The request is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: "bad_request", message: message.into() }
    }

    /// What is asked for does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: "not_found", message: message.into() }
    }

    /// What is asked for contradicts what is there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, kind: "conflict", message: message.into() }
    }

    /// What is asked for is against the configuration.
    pub fn not_allowed(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, kind: "not_allowed", message: message.into() }
    }

    /// The body is too long.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, kind: "too_large", message: message.into() }
    }

    /// Who asks is not known, or not allowed.
    pub fn refused(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, kind: "unauthorized", message: message.into() }
    }

    /// A part of Clairvoy is away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, kind: "unavailable", message: message.into() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({"error": {"message": self.message, "type": self.kind}});
        (self.status, Json(body)).into_response()
    }
}
