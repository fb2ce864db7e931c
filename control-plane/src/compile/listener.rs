use envoy_types::pb::envoy::config::{
    accesslog::v3::{
        AccessLogFilter, ComparisonFilter, ResponseFlagFilter, StatusCodeFilter,
        access_log_filter::FilterSpecifier, comparison_filter,
    },
    common::mutation_rules::v3::{HeaderMutation as Mutation, header_mutation},
    core::v3::{RuntimeUInt32, SubstitutionFormatString, substitution_format_string},
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

use crate::config::{Gateway, LaneRules};

use super::access_log::{self, AccessLogIntent};
use super::errors::{ApiError, DROPPED, DROPPED_FLAG, DROPPED_RETRY_AFTER, LOCAL_REPLIES};
use super::lanes::{LANE_HEADER, signs};
use super::proto::{address, ads, inline, seconds};
use super::routes::{MODEL_HEADER, NO_JSON, NO_MODEL, set_header};

/// Where the body's fields are kept between the filters.
const NAMESPACE: &str = "clairvoy";
const MODEL: &str = "model";
const TIER: &str = "service_tier";
/// A tier that no rule names.
const NO_TIER: &str = "!";

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
            http_filter("envoy.filters.http.json_to_metadata", pack_any(read_body())),
            http_filter("envoy.filters.http.header_mutation", pack_any(body_to_headers(&gateway.lanes))),
            http_filter("envoy.filters.http.router", pack_any(Router::default())),
        ],
        // Silence is limited by each model's route; the manager's own limit would cut a long prefill.
        stream_idle_timeout: Some(seconds(0)),
        request_timeout: Some(seconds(REQUEST_TIMEOUT_SECONDS)),
        request_headers_timeout: Some(seconds(REQUEST_HEADERS_TIMEOUT_SECONDS)),
        use_remote_address: Some(BoolValue { value: true }),
        local_reply_config: Some(LocalReplyConfig {
            // The first that fits counts.
            mappers: std::iter::once(dropped_reply()).chain(LOCAL_REPLIES.iter().map(local_reply)).collect(),
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

/// Copies the body's `model` and `service_tier` into metadata; marks bodies without a model, and bodies that are no JSON.
fn read_body() -> JsonToMetadata {
    let pair = |field: &str, text: Option<&str>| KeyValuePair {
        metadata_namespace: NAMESPACE.to_owned(),
        key: field.to_owned(),
        r#type: ValueType::String.into(),
        value_type: text.map(|text| {
            let kind = value::Kind::StringValue(text.to_owned());
            key_value_pair::ValueType::Value(Value { kind: Some(kind) })
        }),
        ..KeyValuePair::default()
    };
    let rule = |field: &str, missing: &str, error: &str| Rule {
        selectors: vec![Selector { selector: Some(selector::Selector::Key(field.to_owned())) }],
        on_present: Some(pair(field, None)),
        on_missing: Some(pair(field, Some(missing))),
        on_error: Some(pair(field, Some(error))),
    };
    JsonToMetadata {
        request_rules: Some(MatchRules {
            rules: vec![rule(MODEL, NO_MODEL, NO_JSON), rule(TIER, NO_TIER, NO_TIER)],
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

/// Overwrites the internal headers, so that a client cannot set them.
fn body_to_headers(rules: &LaneRules) -> HeaderMutation {
    let field = |field: &str| format!("%DYNAMIC_METADATA({NAMESPACE}:{field})%");
    let overwrite = |name: &str, value: &str| Mutation {
        action: Some(header_mutation::Action::Append(set_header(name, value))),
    };
    HeaderMutation {
        mutations: Some(Mutations {
            request_mutations: vec![
                overwrite(MODEL_HEADER, &field(MODEL)),
                overwrite(LANE_HEADER, &signs(rules, &field(TIER))),
            ],
            ..Mutations::default()
        }),
        ..HeaderMutation::default()
    }
}

/// The answer to a request that an assignment told Envoy to drop.
fn dropped_reply() -> ResponseMapper {
    let is_dropped = ResponseFlagFilter { flags: vec![DROPPED_FLAG.to_owned()] };
    ResponseMapper {
        filter: Some(AccessLogFilter {
            filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(is_dropped)),
        }),
        headers_to_add: vec![set_header("retry-after", DROPPED_RETRY_AFTER)],
        ..reply(&DROPPED)
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
        ..reply(error)
    }
}

/// An error in place of Envoy's own words.
fn reply(error: &ApiError) -> ResponseMapper {
    ResponseMapper {
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
