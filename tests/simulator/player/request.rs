//! One streaming chat completion, measured from sending it to its last token.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;

use crate::history::RequestSize;

/// Longest line of an event stream that is read; a longer one counts as a cut stream.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Why a request has no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureCause {
    /// No connection to the target.
    Connect,
    /// The connection ended before an answer began.
    Reset,
    /// The answer has this status, not 200.
    Status(u16),
    /// The stream of tokens ended before its end mark.
    CutStream,
    /// The time for one request was over.
    Timeout,
}

/// The header in which simulated servers say who they are.
const ADDRESS_HEADER: &str = "x-simulator-address";

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Nothing when the whole answer came.
    pub failure: Option<FailureCause>,
    /// From sending the request to its first token, if there was one.
    pub ttft: Option<Duration>,
    /// From sending the request to the end, good or bad.
    pub duration: Duration,
    /// From sending the request to its newest token, if there was one.
    pub last_token: Option<Duration>,
    /// Tokens received: those the server reports, or else the pieces counted.
    pub output_tokens: u64,
    /// The simulated server that answered, if one did.
    pub server: Option<SocketAddr>,
}

/// Sends requests of one model.
#[derive(Debug, Clone)]
pub struct Sender {
    pub(super) client: reqwest::Client,
    pub(super) model: String,
}

impl Sender {
    /// One for this model, over this client.
    pub fn new(client: reqwest::Client, model: String) -> Self {
        Self { client, model }
    }

    /// Sends one request and reads its answer to the end, within the time of the client.
    pub async fn send(&self, target: SocketAddr, size: RequestSize) -> Outcome {
        self.exchanged(target, size, None).await
    }

    /// Sends one request and reads its answer to the end, within the given time.
    pub async fn send_within(&self, target: SocketAddr, size: RequestSize, time: Duration) -> Outcome {
        self.exchanged(target, size, Some(time)).await
    }

    async fn exchanged(&self, target: SocketAddr, size: RequestSize, time: Option<Duration>) -> Outcome {
        let begin = Instant::now();
        let mut answer = Answer::default();
        let failure = self.exchange(target, size, time, &mut answer).await.err();
        Outcome {
            failure,
            ttft: answer.first_token_at.map(|at| at - begin),
            duration: begin.elapsed(),
            last_token: answer.last_token_at.map(|at| at - begin),
            server: answer.server,
            output_tokens: answer.reported_tokens.unwrap_or(answer.pieces),
        }
    }

    async fn exchange(
        &self,
        target: SocketAddr,
        size: RequestSize,
        time: Option<Duration>,
        answer: &mut Answer,
    ) -> Result<(), FailureCause> {
        let body = serde_json::json!({
            "model": self.model,
            "stream": true,
            "stream_options": { "include_usage": true },
            "max_tokens": size.output_tokens,
            "messages": [{ "role": "user", "content": "Continue the recorded request." }],
        });
        let mut request = self
            .client
            .post(format!("http://{target}/v1/chat/completions"))
            // The text is short; the simulated servers take the sizes from here.
            .header("x-simulator-prompt-tokens", size.prompt_tokens)
            .header("x-simulator-output-tokens", size.output_tokens)
            .json(&body);
        if let Some(time) = time {
            request = request.timeout(time);
        }
        let mut response = request.send().await.map_err(|error| cause_of(&error, FailureCause::Reset))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FailureCause::Status(response.status().as_u16()));
        }
        let server = response.headers().get(ADDRESS_HEADER);
        answer.server = server.and_then(|value| value.to_str().ok()?.parse().ok());
        while let Some(bytes) =
            response.chunk().await.map_err(|error| cause_of(&error, FailureCause::CutStream))?
        {
            answer.read(&bytes, Instant::now());
            if answer.buffer.len() > MAX_LINE_BYTES {
                return Err(FailureCause::CutStream);
            }
        }
        if answer.done { Ok(()) } else { Err(FailureCause::CutStream) }
    }
}

fn cause_of(error: &reqwest::Error, otherwise: FailureCause) -> FailureCause {
    if error.is_timeout() {
        FailureCause::Timeout
    } else if error.is_connect() {
        FailureCause::Connect
    } else {
        otherwise
    }
}

/// What an event stream said so far.
#[derive(Debug, Default)]
struct Answer {
    buffer: Vec<u8>,
    server: Option<SocketAddr>,
    first_token_at: Option<Instant>,
    last_token_at: Option<Instant>,
    pieces: u64,
    reported_tokens: Option<u64>,
    done: bool,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
}

#[derive(Deserialize, Default)]
struct Delta {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u64,
}

impl Answer {
    fn read(&mut self, bytes: &[u8], now: Instant) {
        self.buffer.extend_from_slice(bytes);
        let mut rest = std::mem::take(&mut self.buffer);
        let mut start = 0;
        while let Some(length) = rest[start..].iter().position(|byte| *byte == b'\n') {
            self.line(&rest[start..start + length], now);
            start += length + 1;
        }
        rest.drain(..start);
        self.buffer = rest;
    }

    fn line(&mut self, line: &[u8], now: Instant) {
        let Some(data) = line.strip_prefix(b"data:") else { return };
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Chunk>(data) else { return };
        let has_text = |choice: &Choice| choice.delta.content.as_ref().is_some_and(|text| !text.is_empty());
        if chunk.choices.iter().any(has_text) {
            self.pieces += 1;
            self.first_token_at.get_or_insert(now);
            self.last_token_at = Some(now);
        }
        if let Some(usage) = chunk.usage {
            self.reported_tokens = Some(usage.completion_tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        ": comment\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n\r\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n",
        "data: [DONE]\n\n",
    );

    proptest! {
        #[test]
        fn a_stream_reads_the_same_however_it_is_cut(size in 1..200usize) {
            let mut answer = Answer::default();
            for piece in STREAM.as_bytes().chunks(size) {
                answer.read(piece, Instant::now());
            }
            prop_assert!(answer.done);
            prop_assert_eq!((answer.pieces, answer.reported_tokens), (2, Some(2)));
            prop_assert!(answer.buffer.is_empty());
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            Answer::default().read(&bytes, Instant::now());
        }
    }

    #[test]
    fn an_empty_first_piece_is_not_the_first_token() {
        let mut answer = Answer::default();
        answer.read(STREAM.split_inclusive("\n\n").next().unwrap().as_bytes(), Instant::now());
        assert_eq!(answer.first_token_at, None);
    }
}
