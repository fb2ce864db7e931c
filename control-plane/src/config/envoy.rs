use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use clairvoy_xds::IntakeOptions;

use super::validate::Fault;
use super::{Config, Size, Span};

/// What Envoys log of each request, to Clairvoy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Whether the gateways' listeners log at all (default true).
    pub enabled: bool,
    /// The static cluster in the Envoys' bootstrap that leads to Clairvoy (default `clairvoy_xds`, as `clairvoy bootstrap`
    /// names it). An Envoy without it refuses the listener.
    pub cluster: String,
    /// How often requests that still run are told of (default 10 s): a first token is known that soon.
    pub stream_interval: Span,
    /// Most entries used per second; above it they are sampled (default 20 000).
    pub max_entries_per_second: u32,
    /// Entries that were made longer ago are refused (default 1 min).
    pub max_age: Span,
    /// Entries that are this far ahead of the own clock are refused (default 10 s).
    pub max_future: Span,
    /// Where an entry tells the tokens of its prompt (default: nowhere).
    pub prompt_tokens: Option<TokenSource>,
    /// Where an entry tells the tokens of its answer (default: nowhere). Then they make up the model's tokens/s.
    pub output_tokens: Option<TokenSource>,
    /// Bounds of what comes in.
    pub limits: IntakeLimits,
}

/// Load reports of Envoys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadReports {
    /// Whether Envoys may report (default true). Without, demand is worked out from the servers' metrics.
    pub enabled: bool,
    /// Most endpoints that are read of one report; more are left out and counted (default 100 000).
    pub max_endpoints: usize,
    /// Bounds of what comes in.
    pub limits: IntakeLimits,
}

/// Bounds of what Envoys send, for load reports and for access logs apart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeLimits {
    /// Streams open at a time; more are refused (default 10 000). A worker of an Envoy logs on a stream of its own.
    pub streams: usize,
    /// Longest message; a longer one ends its stream (default `4MiB`).
    pub message_bytes: Size,
    /// Messages that wait to be read (default 1024). Beyond it load reports wait in the Envoys; log entries are dropped,
    /// counted, and made up for by those that are read.
    pub queued_messages: usize,
    /// Memory of the messages that wait to be read (default `64MiB`), with the same beyond it.
    pub queued_bytes: Size,
}

/// Where a log entry tells a number of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// In a header of the response.
    Header(String),
    /// In a trailer of the response.
    Trailer(String),
    /// In dynamic metadata that a filter wrote.
    Metadata(MetadataKey),
}

/// A value in dynamic metadata.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetadataKey {
    /// The namespace, such as `io.envoy.ai_gateway`.
    pub namespace: String,
    /// The key in it, such as `llm_output_token`.
    pub key: String,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: true,
            cluster: crate::compile::XDS_CLUSTER.to_owned(),
            stream_interval: Span::seconds(10),
            max_entries_per_second: 20_000,
            max_age: Span::seconds(60),
            max_future: Span::seconds(10),
            prompt_tokens: None,
            output_tokens: None,
            limits: IntakeLimits::default(),
        }
    }
}

impl Default for LoadReports {
    fn default() -> Self {
        Self { enabled: true, max_endpoints: 100_000, limits: IntakeLimits::default() }
    }
}

impl Default for IntakeLimits {
    fn default() -> Self {
        let of = IntakeOptions::default();
        Self {
            streams: of.max_streams,
            message_bytes: Size(of.max_message_bytes as u64),
            queued_messages: of.max_queued_messages,
            queued_bytes: Size(of.max_queued_bytes as u64),
        }
    }
}

impl IntakeLimits {
    /// The options of an intake with these bounds.
    pub fn options(&self) -> IntakeOptions {
        let bytes = |size: Size| usize::try_from(size.0).unwrap_or(usize::MAX);
        let mut options = IntakeOptions::default();
        options.max_streams = self.streams;
        options.max_message_bytes = bytes(self.message_bytes);
        options.max_queued_messages = self.queued_messages;
        options.max_queued_bytes = bytes(self.queued_bytes);
        options
    }

    fn check(&self, path: &Path, fault: &mut Fault<'_>) {
        let counts = [
            ("streams", self.streams as u64, 1, 1_000_000),
            ("queued_messages", self.queued_messages as u64, 1, 1_000_000),
            // The node that comes with each report has some 60 kB.
            ("message_bytes", self.message_bytes.0, 128 << 10, 16 << 20),
            ("queued_bytes", self.queued_bytes.0, 1 << 20, 64 << 30),
        ];
        for (field, value, least, most) in counts {
            if !(least..=most).contains(&value) {
                fault(path.join(field), format!("{value} is not {least} to {most}"));
            }
        }
    }
}

impl TokenSource {
    fn fault(&self) -> Option<&'static str> {
        // What HTTP allows in the name of a field.
        let is_name = |name: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            (1..=200).contains(&name.len()) && name.bytes().all(allowed)
        };
        let is_text = |text: &str| (1..=200).contains(&text.len());
        match self {
            Self::Header(name) | Self::Trailer(name) if !is_name(name) => Some("no name of a header"),
            Self::Metadata(at) if !is_text(&at.namespace) || !is_text(&at.key) => {
                Some("namespace and key have 1 to 200 characters")
            }
            _ => None,
        }
    }
}

impl Config {
    pub(super) fn check_envoy(&self, root: &Path, fault: &mut Fault<'_>) {
        let telemetry = root.join("telemetry");
        let (log, path) = (&self.telemetry.access_log, telemetry.join("access_log"));
        if !(1.0..=3600.0).contains(&log.stream_interval.as_seconds()) {
            fault(path.join("stream_interval"), "must be 1s to 1h".to_owned());
        }
        if log.max_entries_per_second < 100 {
            fault(path.join("max_entries_per_second"), "less than 100".to_owned());
        }
        if log.cluster.is_empty() {
            fault(path.join("cluster"), "must name a cluster of the Envoys' bootstrap".to_owned());
        }
        if !(1.0..=3600.0).contains(&log.max_age.as_seconds()) {
            fault(path.join("max_age"), "must be 1s to 1h".to_owned());
        }
        if log.max_future.as_seconds() > 300.0 {
            fault(path.join("max_future"), "must be 0s to 5m".to_owned());
        }
        for (field, source) in [("prompt_tokens", &log.prompt_tokens), ("output_tokens", &log.output_tokens)]
        {
            if let Some(message) = source.as_ref().and_then(TokenSource::fault) {
                fault(path.join(field), message.to_owned());
            }
        }
        log.limits.check(&path.join("limits"), fault);
        let (reports, path) = (&self.telemetry.load_reports, telemetry.join("load_reports"));
        if !(1..=1_000_000).contains(&reports.max_endpoints) {
            fault(path.join("max_endpoints"), "must be 1 to 1000000".to_owned());
        }
        reports.limits.check(&path.join("limits"), fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn tokens_are_read_from_headers_trailers_and_metadata() {
        let config = parse(
            "telemetry:\n  access_log:\n    prompt_tokens: { header: X-Prompt-Tokens }\n    \
             output_tokens: { metadata: { namespace: io.envoy.ai_gateway, key: llm_output_token } }\n",
        )
        .unwrap();
        let log = config.telemetry.access_log;
        assert_eq!(log.prompt_tokens, Some(TokenSource::Header("X-Prompt-Tokens".to_owned())));
        let key = MetadataKey { namespace: "io.envoy.ai_gateway".into(), key: "llm_output_token".into() };
        assert_eq!(log.output_tokens, Some(TokenSource::Metadata(key)));
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault() {
        for (text, expected) in [
            ("access_log: { prompt_tokens: { header: \"x y\" } }", "prompt_tokens"),
            ("access_log: { prompt_tokens: { cookie: x } }", "cookie"),
            ("access_log: { output_tokens: { metadata: { namespace: \"\", key: k } } }", "output_tokens"),
            ("access_log: { limits: { streams: 0 } }", "streams"),
            ("access_log: { max_age: 2h }", "max_age"),
            ("load_reports: { limits: { message_bytes: 1KiB } }", "message_bytes"),
            ("load_reports: { max_endpoints: 0 }", "max_endpoints"),
        ] {
            let faults = parse(&format!("telemetry:\n  {text}\n")).unwrap_err();
            assert!(faults.contains(expected), "{text}:\n{faults}");
        }
    }
}
