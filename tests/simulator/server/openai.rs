//! Requests and errors in OpenAI's shapes.

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::engine::NewRequest;

use super::metrics::FinishReason;

/// Overrides the estimate of the prompt's length, in tokens.
const PROMPT_TOKENS_HEADER: &str = "x-simulator-prompt-tokens";
/// Length that the answer would have without the client's limit, in tokens.
const OUTPUT_TOKENS_HEADER: &str = "x-simulator-output-tokens";
/// Length of an answer when neither the client nor the header gives one.
const DEFAULT_OUTPUT_TOKENS: u32 = 128;
/// A rule of thumb for English text.
const CHARACTERS_PER_TOKEN: usize = 4;

/// The fields of both kinds of completion request that a simulated server looks at.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionRequest {
    pub(super) model: String,
    #[serde(default)]
    messages: Vec<Message>,
    prompt: Option<Prompt>,
    #[serde(default)]
    pub(super) stream: bool,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct Message {
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
}

impl CompletionRequest {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body)
            .map_err(|error| ApiError::bad_request(format!("cannot read the request: {error}")))
    }

    pub(super) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// Lengths in tokens, and how the answer will end.
    pub(super) fn lengths(&self, headers: &HeaderMap) -> Result<(NewRequest, FinishReason), ApiError> {
        let prompt_tokens = match token_header(headers, PROMPT_TOKENS_HEADER)? {
            Some(tokens) => tokens,
            None => self.estimated_prompt_tokens(),
        };
        let natural = token_header(headers, OUTPUT_TOKENS_HEADER)?;
        let limit = self.max_completion_tokens.or(self.max_tokens);
        if limit == Some(0) {
            return Err(ApiError::bad_request("max_tokens must be at least 1".to_owned()));
        }
        let (output_tokens, reason) = match (natural, limit) {
            (Some(natural), Some(limit)) if natural < limit => (natural, FinishReason::Stop),
            (_, Some(limit)) => (limit, FinishReason::Length),
            (natural, None) => (natural.unwrap_or(DEFAULT_OUTPUT_TOKENS), FinishReason::Stop),
        };
        Ok((NewRequest { prompt_tokens, output_tokens }, reason))
    }

    fn estimated_prompt_tokens(&self) -> u32 {
        let messages = self.messages.iter().filter_map(|message| message.content.as_ref());
        let mut characters: usize = messages
            .map(|content| match content {
                Content::Text(text) => text.len(),
                Content::Parts(parts) => {
                    parts.iter().filter_map(|part| part.text.as_ref()).map(String::len).sum()
                }
            })
            .sum();
        let mut tokens = 0;
        match &self.prompt {
            Some(Prompt::Text(text)) => characters += text.len(),
            Some(Prompt::Texts(texts)) => characters += texts.iter().map(String::len).sum::<usize>(),
            Some(Prompt::Tokens(list)) => tokens = list.len(),
            None => {}
        }
        let tokens = tokens + characters.div_ceil(CHARACTERS_PER_TOKEN);
        u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
    }
}

fn token_header(headers: &HeaderMap, name: &str) -> Result<Option<u32>, ApiError> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let tokens = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|&tokens| tokens > 0);
    match tokens {
        Some(tokens) => Ok(Some(tokens)),
        None => Err(ApiError::bad_request(format!("header {name} is not a number of tokens: {value:?}"))),
    }
}

/// An error in OpenAI's form.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
}

impl ApiError {
    pub(super) fn bad_request(message: String) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid_request_error",
            code: None,
            param: None,
            message,
        }
    }

    pub(super) fn too_long(message: String) -> Self {
        Self { code: Some("context_length_exceeded"), ..Self::bad_request(message) }
    }

    pub(super) fn unknown_model(model: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            code: Some("model_not_found"),
            param: Some("model"),
            ..Self::bad_request(format!("the model {model:?} does not exist"))
        }
    }

    pub(super) fn overloaded(message: String) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, kind: "server_error", ..Self::bad_request(message) }
    }

    pub(super) fn internal(message: &str) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            kind: "server_error",
            ..Self::bad_request(message.to_owned())
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self { status, kind, code, param, message } = self;
        let error = json!({ "message": message, "type": kind, "param": param, "code": code });
        (status, axum::Json(json!({ "error": error }))).into_response()
    }
}
