//! Answers: one JSON document, or a stream of server-sent events.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde_json::{Value, json};

use super::core::{Progress, Ticket};
use super::metrics::FinishReason;
use super::openai::ApiError;

/// One word counts as one token.
const WORDS: [&str; 9] =
    [" This", " text", " is", " simulated:", " no", " model", " has", " written", " it."];

/// Which endpoint is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completions,
}

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) endpoint: Endpoint,
    pub(super) model: String,
    pub(super) prompt_tokens: u32,
    pub(super) reason: FinishReason,
    pub(super) include_usage: bool,
    pub(super) ticket: Ticket,
    created: u64,
    sent_tokens: u32,
    finished: bool,
}

impl Answer {
    pub(super) fn new(
        endpoint: Endpoint,
        model: String,
        prompt_tokens: u32,
        reason: FinishReason,
        include_usage: bool,
        ticket: Ticket,
    ) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            endpoint,
            model,
            prompt_tokens,
            reason,
            include_usage,
            ticket,
            created,
            sent_tokens: 0,
            finished: false,
        }
    }

    /// Waits for the whole answer.
    pub(super) async fn whole(mut self) -> Result<Response, ApiError> {
        let progress = match self.ticket.progress.wait_for(|progress| progress.done).await {
            Ok(progress) => *progress,
            Err(_) => return Err(ApiError::internal("the simulated engine has gone")),
        };
        let content = text(0, progress.tokens);
        let mut choice = json!({ "index": 0, "logprobs": null, "finish_reason": self.reason.name() });
        match self.endpoint {
            Endpoint::Chat => choice["message"] = json!({ "role": "assistant", "content": content }),
            Endpoint::Completions => choice["text"] = content.into(),
        }
        let mut body = self.document(false);
        body["choices"] = json!([choice]);
        body["usage"] = self.usage(progress);
        Ok(axum::Json(body).into_response())
    }

    /// Waits until there is a first token.
    pub(super) async fn first_token(&mut self) {
        // An error means that the engine has gone; the stream will say so.
        let _ = self.ticket.progress.wait_for(|progress| progress.tokens > 0).await;
    }

    /// Answers at once with headers and then streams. Tokens that arrive together share a chunk.
    pub(super) fn stream(self) -> Response {
        let chunks = stream::unfold(self, |mut answer| async move {
            if answer.finished {
                return None;
            }
            let sent = answer.sent_tokens;
            let progress =
                answer.ticket.progress.wait_for(|progress| progress.tokens > sent).await.map(|p| *p);
            let Ok(progress) = progress else {
                answer.finished = true;
                return Some((Err(io::Error::other("the simulated engine has gone")), answer));
            };
            let frames = answer.frames(progress);
            Some((Ok::<Bytes, io::Error>(frames), answer))
        });
        let headers =
            [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
        (headers, Body::from_stream(chunks)).into_response()
    }

    fn frames(&mut self, progress: Progress) -> Bytes {
        let mut frames = String::new();
        if self.sent_tokens == 0 && self.endpoint == Endpoint::Chat {
            let delta = json!({ "role": "assistant", "content": "" });
            push(&mut frames, &self.chunk(json!([{ "index": 0, "delta": delta, "finish_reason": null }])));
        }
        let content = text(self.sent_tokens, progress.tokens);
        self.sent_tokens = progress.tokens;
        push(&mut frames, &self.chunk(json!([self.choice(&content, None)])));
        if progress.done {
            push(&mut frames, &self.chunk(json!([self.choice("", Some(self.reason))])));
            if self.include_usage {
                let mut last = self.chunk(json!([]));
                last["usage"] = self.usage(progress);
                push(&mut frames, &last);
            }
            frames.push_str("data: [DONE]\n\n");
            self.finished = true;
        }
        frames.into()
    }

    fn choice(&self, content: &str, reason: Option<FinishReason>) -> Value {
        let reason = reason.map(FinishReason::name);
        match (self.endpoint, reason) {
            (Endpoint::Chat, None) => {
                json!({ "index": 0, "delta": { "content": content }, "finish_reason": null })
            }
            (Endpoint::Chat, reason) => json!({ "index": 0, "delta": {}, "finish_reason": reason }),
            (Endpoint::Completions, reason) => {
                json!({ "index": 0, "text": content, "finish_reason": reason })
            }
        }
    }

    fn chunk(&self, choices: Value) -> Value {
        let mut chunk = self.document(true);
        chunk["choices"] = choices;
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn document(&self, is_chunk: bool) -> Value {
        let (prefix, object) = match (self.endpoint, is_chunk) {
            (Endpoint::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
            (Endpoint::Chat, false) => ("chatcmpl", "chat.completion"),
            (Endpoint::Completions, _) => ("cmpl", "text_completion"),
        };
        json!({
            "id": format!("{prefix}-simulated-{}", self.ticket.id),
            "object": object,
            "created": self.created,
            "model": self.model,
        })
    }

    fn usage(&self, progress: Progress) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": progress.tokens,
            "total_tokens": self.prompt_tokens + progress.tokens,
            "prompt_tokens_details": { "cached_tokens": progress.cached_tokens },
        })
    }
}

fn push(frames: &mut String, chunk: &Value) {
    frames.push_str("data: ");
    frames.push_str(&chunk.to_string());
    frames.push_str("\n\n");
}

/// Tokens `from..to` of what the simulator always says.
fn text(from: u32, to: u32) -> String {
    let words = (from..to).map(|index| WORDS[index as usize % WORDS.len()]);
    let text: String = words.collect();
    if from == 0 { text.trim_start().to_owned() } else { text }
}
