//! Answers of the gateway itself, in the form in which OpenAI's API reports errors.

use serde_json::json;

/// An error that a client gets from Envoy rather than from a model server.
pub(super) struct ApiError {
    pub(super) status: u32,
    message: &'static str,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl ApiError {
    pub(super) fn body(&self) -> String {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
            .to_string()
    }
}

pub(super) const UNKNOWN_MODEL: ApiError = ApiError {
    status: 404,
    message: "The requested model does not exist. GET /v1/models lists those that do.",
    kind: "invalid_request_error",
    param: Some("model"),
    code: Some("model_not_found"),
};

pub(super) const MISSING_MODEL: ApiError = ApiError {
    status: 400,
    message: "The request names no model: set the field `model` of the JSON body.",
    kind: "invalid_request_error",
    param: Some("model"),
    code: Some("missing_required_parameter"),
};

pub(super) const BAD_JSON: ApiError = ApiError {
    status: 400,
    message: "The body of the request could not be parsed as JSON (Content-Type: application/json).",
    kind: "invalid_request_error",
    param: None,
    code: Some("invalid_json"),
};

/// For requests that said that they can wait. Clients of OpenAI's `service_tier: flex` know it.
pub(super) const BATCH_REFUSED: ApiError = ApiError {
    status: 429,
    message: "The model is at its capacity, and requests that can wait are refused. Try again later.",
    kind: "rate_limit_error",
    param: None,
    code: Some("resource_unavailable"),
};

/// For requests that an assignment told Envoy to drop.
pub(super) const DROPPED: ApiError = ApiError {
    status: 503,
    message: "More requests come than the servers of this model can take. Try again in a moment.",
    kind: "server_error",
    param: None,
    code: Some("overloaded"),
};
/// Envoy's flag of these.
pub(super) const DROPPED_FLAG: &str = "DO";
/// When they may come again, seconds: by then it is decided anew what is refused.
pub(super) const DROPPED_RETRY_AFTER: &str = "2";

/// Replies that Envoy makes up by itself, by status.
pub(super) const LOCAL_REPLIES: [ApiError; 4] = [
    ApiError {
        status: 413,
        message: "The body of the request is larger than this gateway takes.",
        kind: "invalid_request_error",
        param: None,
        code: Some("request_too_large"),
    },
    ApiError {
        status: 408,
        message: "The request was not complete in time, or its stream was silent for too long.",
        kind: "invalid_request_error",
        param: None,
        code: Some("request_timeout"),
    },
    ApiError {
        status: 503,
        message: "No server for this model is available at the moment.",
        kind: "server_error",
        param: None,
        code: Some("service_unavailable"),
    },
    ApiError {
        status: 504,
        message: "The model server did not answer in time.",
        kind: "server_error",
        param: None,
        code: Some("upstream_timeout"),
    },
];
