use envoy_types::pb::envoy::config::{
    accesslog::v3::{
        AccessLogFilter, ComparisonFilter, StatusCodeFilter, access_log_filter::FilterSpecifier,
        comparison_filter,
    },
    common::mutation_rules::v3::{HeaderMutation as Mutation, header_mutation},
    core::v3::{
        HeaderValue, HeaderValueOption, RuntimeUInt32, SubstitutionFormatString,
        header_value_option::HeaderAppendAction, substitution_format_string,
    },
    listener::v3::{Filter, FilterChain, Listener, filter},
};
use envoy_types::pb::envoy::extensions::filters::{
    http::{
        header_mutation::v3::{HeaderMutation, Mutations},
        json_to_metadata::v3::{
            JsonToMetadata,
            json_to_metadata::{
                KeyValuePair, MatchRules, Rule, Selector, ValueType, key_value_pair, selector,
            },
        },
        router::v3::Router,
    },
    network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, LocalReplyConfig, Rds, ResponseMapper, http_connection_manager,
        http_filter,
    },
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value, Value, value};
use envoy_types::util::pack_any;

use crate::config::Gateway;

use super::access_log::{self, AccessLogIntent};
use super::errors::{ApiError, LOCAL_REPLIES};
use super::proto::{address, ads, inline, seconds};
use super::routes::{MODEL_HEADER, NO_JSON, NO_MODEL};

/// Where the body's `model` field is kept between the filters.
const NAMESPACE: &str = "clairvoy";

/// Longest time for the client to send its whole request: a slow upload of a long prompt, yet no endless one.
const REQUEST_TIMEOUT_SECONDS: i64 = 300;
/// Longest time for the client to send its headers.
const REQUEST_HEADERS_TIMEOUT_SECONDS: i64 = 30;

/// The listener of a gateway. It depends on the gateway's own settings only, never on the models: those are in its routes.
pub(super) fn listener(gateway: &Gateway, log: Option<&AccessLogIntent>) -> Listener {
    let manager = HttpConnectionManager {
        stat_prefix: gateway.name.clone(),
        route_specifier: Some(http_connection_manager::RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: gateway.name.clone(),
        })),
        http_filters: vec![
            http_filter("envoy.filters.http.json_to_metadata", pack_any(read_model())),
            http_filter("envoy.filters.http.header_mutation", pack_any(model_to_header())),
            http_filter("envoy.filters.http.router", pack_any(Router::default())),
        ],
        // Silence is limited by each model's route; the manager's own limit would cut a long prefill.
        stream_idle_timeout: Some(seconds(0)),
        request_timeout: Some(seconds(REQUEST_TIMEOUT_SECONDS)),
        request_headers_timeout: Some(seconds(REQUEST_HEADERS_TIMEOUT_SECONDS)),
        use_remote_address: Some(BoolValue { value: true }),
        local_reply_config: Some(LocalReplyConfig {
            mappers: LOCAL_REPLIES.iter().map(local_reply).collect(),
            body_format: None,
        }),
        access_log: log.map(|log| access_log::logger(&gateway.name, log)).into_iter().collect(),
        access_log_options: log.map(access_log::options),
        ..HttpConnectionManager::default()
    };
    Listener {
        name: gateway.name.clone(),
        address: Some(address(gateway.listen)),
        // The body is buffered until its `model` field is known; beyond this limit the answer is 413.
        per_connection_buffer_limit_bytes: Some(UInt32Value { value: gateway.max_body_bytes }),
        filter_chains: vec![FilterChain {
            filters: vec![Filter {
                name: "envoy.filters.network.http_connection_manager".to_owned(),
                config_type: Some(filter::ConfigType::TypedConfig(pack_any(manager))),
            }],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

/// Copies the body's `model` into metadata; marks bodies without one, and bodies that are no JSON.
fn read_model() -> JsonToMetadata {
    let pair = |text: Option<&str>| KeyValuePair {
        metadata_namespace: NAMESPACE.to_owned(),
        key: "model".to_owned(),
        r#type: ValueType::String.into(),
        value_type: text.map(|text| {
            let kind = value::Kind::StringValue(text.to_owned());
            key_value_pair::ValueType::Value(Value { kind: Some(kind) })
        }),
        ..KeyValuePair::default()
    };
    JsonToMetadata {
        request_rules: Some(MatchRules {
            rules: vec![Rule {
                selectors: vec![Selector { selector: Some(selector::Selector::Key("model".to_owned())) }],
                on_present: Some(pair(None)),
                on_missing: Some(pair(Some(NO_MODEL))),
                on_error: Some(pair(Some(NO_JSON))),
            }],
            // The default is exactly `application/json`: a charset behind it would count as an error.
            allow_content_types_regex: Some(RegexMatcher {
                regex: "(?i)application/json(\\s*;.*)?".to_owned(),
                ..RegexMatcher::default()
            }),
            ..MatchRules::default()
        }),
        response_rules: None,
    }
}

/// Overwrites the internal header, so that a client cannot set it.
fn model_to_header() -> HeaderMutation {
    let overwrite = HeaderValueOption {
        header: Some(HeaderValue {
            key: MODEL_HEADER.to_owned(),
            value: format!("%DYNAMIC_METADATA({NAMESPACE}:model)%"),
            ..HeaderValue::default()
        }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    };
    HeaderMutation {
        mutations: Some(Mutations {
            request_mutations: vec![Mutation { action: Some(header_mutation::Action::Append(overwrite)) }],
            ..Mutations::default()
        }),
        ..HeaderMutation::default()
    }
}

fn local_reply(error: &ApiError) -> ResponseMapper {
    let status_is = StatusCodeFilter {
        comparison: Some(ComparisonFilter {
            op: comparison_filter::Op::Eq.into(),
            // Envoy demands the key of a runtime override; nothing sets it.
            value: Some(RuntimeUInt32 {
                default_value: error.status,
                runtime_key: format!("clairvoy.local_reply.{}", error.status),
            }),
        }),
    };
    ResponseMapper {
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::StatusCodeFilter(status_is)),
        }),
        body: Some(inline(error.body())),
        body_format_override: Some(SubstitutionFormatString {
            content_type: "application/json".to_owned(),
            format: Some(substitution_format_string::Format::TextFormatSource(inline("%LOCAL_REPLY_BODY%"))),
            ..SubstitutionFormatString::default()
        }),
        ..ResponseMapper::default()
    }
}

fn http_filter(name: &str, config: envoy_types::pb::google::protobuf::Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}
