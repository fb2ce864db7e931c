use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use clairvoy::telemetry::install_crypto_provider;
use futures::StreamExt;
use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Longest time for any answer to be complete.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that keeps nothing open: connections of one test's runtime are of no use in another's.
pub(crate) fn client() -> Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| client_at(None)).clone()
}

/// One whose connections come from an address of this machine; none: from any.
pub(crate) fn client_at(address: Option<IpAddr>) -> Client {
    install_crypto_provider();
    let builder = Client::builder().no_proxy().timeout(LIMIT).pool_max_idle_per_host(0);
    builder.local_address(address).tls_certs_only([]).build().unwrap()
}

/// A client that keeps its connections, as applications do.
pub(crate) fn keeping_client() -> Client {
    install_crypto_provider();
    Client::builder().no_proxy().timeout(LIMIT).tls_certs_only([]).build().unwrap()
}

/// A chat request for a model, with a prompt of 100 tokens.
#[derive(Clone, Debug)]
pub(crate) struct Chat {
    pub(super) client: Client,
    pub(crate) gateway: SocketAddr,
    pub(crate) model: String,
    pub(crate) tokens: u32,
}

/// A streamed answer that came to its proper end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// When each piece arrived.
    pub(crate) arrivals: Vec<Instant>,
    /// Tokens of output, as the server counted them.
    pub(crate) tokens: u64,
}

impl Chat {
    pub(crate) fn new(gateway: SocketAddr, model: &str, tokens: u32) -> Self {
        Self { client: client(), gateway, model: model.to_owned(), tokens }
    }

    pub(crate) fn body(&self) -> Value {
        json!({
            "model": self.model,
            "messages": [{ "role": "user", "content": "Hello" }],
            "max_tokens": self.tokens,
        })
    }

    /// A request for the whole answer at once.
    pub(crate) fn request(&self) -> RequestBuilder {
        self.client.post(self.url()).json(&self.body())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1/chat/completions", self.gateway)
    }

    /// Asks for a stream and reads it to its end; anything but a complete one is an error.
    pub(crate) async fn stream(&self) -> Result<Answer, String> {
        let mut body = self.body();
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let request = self.client.post(self.url()).header("x-simulator-prompt-tokens", 100).json(&body);
        let response = request.send().await.map_err(|error| format!("no answer: {error:?}"))?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}: {:?}", response.status(), response.text().await));
        }
        let mut pieces = response.bytes_stream();
        let mut arrivals = Vec::new();
        let mut text = Vec::new();
        while let Some(piece) = pieces.next().await {
            text.extend(piece.map_err(|error| format!("broken after {} bytes: {error:?}", text.len()))?);
            arrivals.push(Instant::now());
        }
        let text = String::from_utf8_lossy(&text);
        let frames: Vec<&str> = text.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
        let [.., usage, "[DONE]"] = frames.as_slice() else {
            return Err(format!("the stream has no end: {text}"));
        };
        let usage: Value = serde_json::from_str(usage).map_err(|error| format!("{error}: {usage}"))?;
        let tokens = usage["usage"]["completion_tokens"].as_u64();
        match tokens {
            Some(tokens) if tokens == u64::from(self.tokens) => Ok(Answer { arrivals, tokens }),
            _ => Err(format!("not the usage that was asked for: {usage}")),
        }
    }
}

pub(crate) fn content_type(response: &Response) -> &str {
    response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The error of an answer in OpenAI's form: status, type and code.
pub(crate) async fn error_of(response: Response) -> (u16, String, String) {
    assert_eq!(content_type(&response), "application/json", "{response:?}");
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let error = &body["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(error.get("param").is_some() && error.get("code").is_some(), "{body}");
    let word = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (status, word("type"), word("code"))
}
