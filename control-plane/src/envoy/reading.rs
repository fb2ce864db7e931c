use std::collections::HashMap;

use envoy_types::pb::envoy::data::accesslog::v3::HttpAccessLogEntry;
use envoy_types::pb::google::protobuf::value::Kind;

use crate::config::{AccessLog, TokenSource};

/// More tokens are in no prompt and no answer: then the number is none.
const MOST_TOKENS: f64 = 1e8;

/// How entries of an access log are read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// How often requests that still run are told of, seconds.
    pub stream_interval_seconds: f64,
    /// Entries that were made longer ago are refused, seconds.
    pub max_age_seconds: f64,
    /// Entries that are this far ahead are refused, seconds.
    pub max_future_seconds: f64,
    prompt_tokens: Option<TokenSource>,
    output_tokens: Option<TokenSource>,
}

impl Reading {
    /// As the configuration says.
    pub fn new(settings: &AccessLog) -> Self {
        Self {
            stream_interval_seconds: settings.stream_interval.as_seconds(),
            max_age_seconds: settings.max_age.as_seconds(),
            max_future_seconds: settings.max_future.as_seconds(),
            prompt_tokens: settings.prompt_tokens.as_ref().map(as_logged),
            output_tokens: settings.output_tokens.as_ref().map(as_logged),
        }
    }

    /// Whether entries should tell any tokens.
    pub fn wants_tokens(&self) -> bool {
        self.prompt_tokens.is_some() || self.output_tokens.is_some()
    }

    /// Tokens of the prompt and of the answer, as far as the entry tells them.
    pub(super) fn tokens(&self, entry: &HttpAccessLogEntry) -> (Option<f64>, Option<f64>) {
        let read = |source: &Option<TokenSource>| source.as_ref().and_then(|source| tokens(source, entry));
        (read(&self.prompt_tokens), read(&self.output_tokens))
    }
}

/// Envoy logs names of headers in lower case.
fn as_logged(source: &TokenSource) -> TokenSource {
    match source {
        TokenSource::Header(name) => TokenSource::Header(name.to_ascii_lowercase()),
        TokenSource::Trailer(name) => TokenSource::Trailer(name.to_ascii_lowercase()),
        TokenSource::Metadata(key) => TokenSource::Metadata(key.clone()),
    }
}

fn tokens(source: &TokenSource, entry: &HttpAccessLogEntry) -> Option<f64> {
    let written = |map: &HashMap<String, String>, name: &String| map.get(name)?.trim().parse::<f64>().ok();
    let count = match source {
        TokenSource::Header(name) => written(&entry.response.as_ref()?.response_headers, name)?,
        TokenSource::Trailer(name) => written(&entry.response.as_ref()?.response_trailers, name)?,
        TokenSource::Metadata(at) => {
            let metadata = entry.common_properties.as_ref()?.metadata.as_ref()?;
            match metadata.filter_metadata.get(&at.namespace)?.fields.get(&at.key)?.kind.as_ref()? {
                Kind::NumberValue(number) => *number,
                Kind::StringValue(text) => text.trim().parse().ok()?,
                _ => return None,
            }
        }
    };
    (0.0..=MOST_TOKENS).contains(&count).then_some(count)
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::Metadata;
    use envoy_types::pb::google::protobuf::{Struct, Value};

    use super::super::entry::tests::entry;
    use super::*;
    use crate::config::MetadataKey;

    fn reading(prompt: Option<TokenSource>, output: Option<TokenSource>) -> Reading {
        let settings = AccessLog { prompt_tokens: prompt, output_tokens: output, ..AccessLog::default() };
        Reading::new(&settings)
    }

    #[test]
    fn tokens_are_where_the_configuration_says() {
        let mut entry = entry(200, 0, 0);
        let response = entry.response.as_mut().unwrap();
        response.response_headers.insert("x-prompt-tokens".to_owned(), "120".to_owned());
        response.response_trailers.insert("x-output-tokens".to_owned(), " 34 ".to_owned());
        let header = |name: &str| Some(TokenSource::Header(name.to_owned()));
        let trailer = |name: &str| Some(TokenSource::Trailer(name.to_owned()));
        let of = reading(header("X-Prompt-Tokens"), trailer("x-output-tokens"));
        assert_eq!(of.tokens(&entry), (Some(120.0), Some(34.0)));
        let of = reading(trailer("x-prompt-tokens"), header("content-type"));
        assert_eq!(of.tokens(&entry), (None, None), "not there, and no number");
        assert!(!reading(None, None).wants_tokens());
    }

    #[test]
    fn metadata_of_other_filters_tells_tokens_as_number_or_text() {
        let key = |key: &str| {
            let namespace = "io.envoy.ai_gateway".to_owned();
            Some(TokenSource::Metadata(MetadataKey { namespace, key: key.to_owned() }))
        };
        let of = reading(key("llm_input_token"), key("llm_output_token"));
        for (kind, expected) in [
            (Kind::NumberValue(17.0), Some(17.0)),
            (Kind::StringValue("17".to_owned()), Some(17.0)),
            (Kind::NumberValue(f64::NAN), None),
            (Kind::NumberValue(-1.0), None),
            (Kind::StringValue("inf".to_owned()), None),
            (Kind::BoolValue(true), None),
        ] {
            let fields = [("llm_output_token".to_owned(), Value { kind: Some(kind) })].into();
            let namespace = ("io.envoy.ai_gateway".to_owned(), Struct { fields });
            let mut entry = entry(200, 0, 0);
            entry.common_properties.as_mut().unwrap().metadata =
                Some(Metadata { filter_metadata: [namespace].into(), ..Metadata::default() });
            assert_eq!(of.tokens(&entry), (None, expected));
        }
    }
}
