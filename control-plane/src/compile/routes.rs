use envoy_types::pb::envoy::config::{
    core::v3::{
        HeaderValue, HeaderValueOption, RuntimeFractionalPercent, header_value_option::HeaderAppendAction,
    },
    route::v3::{
        DirectResponseAction, HeaderMatcher, RetryPolicy, Route, RouteAction, RouteConfiguration, RouteMatch,
        VirtualHost, header_matcher, retry_policy, route, route_action, route_match,
    },
};
use envoy_types::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};
use envoy_types::util::pack_any;
use serde_json::json;

use crate::config::{Gateway, LaneRules, Policy};
use crate::envoy::{Lane, lane_route, predictive_key, static_cluster};

use super::ModelIntent;
use super::errors::{ApiError, BAD_JSON, MISSING_MODEL, UNKNOWN_MODEL};
use super::lanes::{LANE_HEADER, lanes, priority, refusal};
use super::policy::hash_policies;
use super::proto::{inline, seconds, span};

/// Carries the body's model from the filters to the routes; removed before the request goes on.
pub(super) const MODEL_HEADER: &str = "x-clairvoy-model";
/// The header by which a client may name a model when its body cannot.
pub(super) const CLIENT_HEADER: &str = "x-model";
/// Model names never start with `!`, so these two cannot be mistaken for one.
pub(super) const NO_MODEL: &str = "!missing";
pub(super) const NO_JSON: &str = "!error";

/// Without it vLLM and Triton report no load.
const LOAD_FORMAT_HEADER: &str = "endpoint-load-metrics-format";
/// In which backends report their load (ORCA).
const LOAD_HEADERS: [&str; 2] = ["endpoint-load-metrics", "endpoint-load-metrics-bin"];

/// Tries after the first, each on another backend, and only where the request did not reach one.
const RETRIES: u32 = 2;

/// The routes of a gateway: the body's `model` decides; without one, the client's model header; else an error.
///
/// A list of header matches rather than a matcher tree: the tree's map has no fixed order on the wire, and resource
/// versions are hashes of bytes.
pub(super) fn routes(gateway: &Gateway, models: &[ModelIntent]) -> RouteConfiguration {
    let rules = &gateway.lanes;
    let mut routes = vec![model_list(models)];
    routes.extend(
        models.iter().flat_map(|model| model_routes(model, rules, &[exact(MODEL_HEADER, &model.name)])),
    );
    routes.extend(models.iter().flat_map(|model| {
        let no_model_in_body = header(MODEL_HEADER, string_matcher::MatchPattern::Prefix("!".to_owned()));
        model_routes(model, rules, &[no_model_in_body, exact(CLIENT_HEADER, &model.name)])
    }));
    let is_absent = HeaderMatcher {
        name: CLIENT_HEADER.to_owned(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::PresentMatch(false)),
        ..HeaderMatcher::default()
    };
    routes.push(error_route(vec![exact(MODEL_HEADER, NO_MODEL), is_absent.clone()], &MISSING_MODEL));
    routes.push(error_route(vec![exact(MODEL_HEADER, NO_JSON), is_absent], &BAD_JSON));
    routes.push(error_route(Vec::new(), &UNKNOWN_MODEL));
    RouteConfiguration {
        name: gateway.name.clone(),
        virtual_hosts: vec![VirtualHost {
            name: "models".to_owned(),
            domains: vec!["*".to_owned()],
            routes,
            request_headers_to_remove: vec![MODEL_HEADER.to_owned(), LANE_HEADER.to_owned()],
            ..VirtualHost::default()
        }],
        // A route may lead to a cluster that arrives a moment later on the same stream.
        validate_clusters: Some(BoolValue { value: false }),
        ..RouteConfiguration::default()
    }
}

/// Batch requests first, which are the ones that carry a sign; as many of them as the runtime layer says are refused. Both
/// lanes lead to the same clusters: an Envoy that counted their requests apart would not know how busy backends are.
fn model_routes(model: &ModelIntent, rules: &LaneRules, headers: &[HeaderMatcher]) -> Vec<Route> {
    let mut routes = Vec::new();
    for (lane, sign) in lanes(model.lanes.lane, rules) {
        let headers: Vec<_> = headers.iter().cloned().chain(sign).collect();
        if lane == Lane::Batch && model.lanes.refuses {
            routes.push(refusal(&model.name, &model.lanes, headers.clone()));
        }
        routes.extend(ways(model, lane, &headers));
    }
    routes
}

/// By predictions as far as the runtime layer says so; the rest, and without the layer all, by capacity. Where Envoy
/// balances by itself there is one way.
fn ways(model: &ModelIntent, lane: Lane, headers: &[HeaderMatcher]) -> Vec<Route> {
    if !model.falls_back() {
        return vec![model_route(model, lane, any_path(headers.to_vec()), model.name.clone())];
    }
    let predictive = RouteMatch {
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator: 0, ..FractionalPercent::default() }),
            runtime_key: predictive_key(&model.name),
        }),
        ..any_path(headers.to_vec())
    };
    vec![
        model_route(model, lane, predictive, model.name.clone()),
        model_route(model, lane, any_path(headers.to_vec()), static_cluster(&model.name)),
    ]
}

fn model_route(model: &ModelIntent, lane: Lane, matcher: RouteMatch, cluster: String) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster)),
        // 0 turns off Envoy's default of 15 s, which would cut streams in the middle.
        timeout: Some(seconds(0)),
        idle_timeout: Some(span(model.timeouts.idle)),
        max_stream_duration: Some(route_action::MaxStreamDuration {
            max_stream_duration: Some(span(model.timeouts.total)),
            ..route_action::MaxStreamDuration::default()
        }),
        retry_policy: Some(retry_policy()),
        hash_policy: hash_policies(&model.balance),
        priority: priority(lane).into(),
        ..RouteAction::default()
    };
    let mut route = Route {
        name: lane_route(lane, &model.name),
        r#match: Some(matcher),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    };
    if !model.load_metrics.is_empty() || model.balance.policy == Policy::Orca {
        route.request_headers_to_add = vec![set_header(LOAD_FORMAT_HEADER, "json")];
        // How busy a backend is, is nothing for clients.
        route.response_headers_to_remove = LOAD_HEADERS.map(str::to_owned).to_vec();
    }
    route
}

fn retry_policy() -> RetryPolicy {
    let previous_hosts = retry_policy::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(retry_policy::retry_host_predicate::ConfigType::TypedConfig(pack_any(
            PreviousHostsPredicate {},
        ))),
    };
    RetryPolicy {
        retry_on: "connect-failure,refused-stream,reset-before-request".to_owned(),
        num_retries: Some(UInt32Value { value: RETRIES }),
        retry_host_predicate: vec![previous_hosts],
        host_selection_retry_max_attempts: 5,
        ..RetryPolicy::default()
    }
}

/// `GET /v1/models`, in OpenAI's form.
fn model_list(models: &[ModelIntent]) -> Route {
    let data: Vec<_> = models
        .iter()
        .map(|model| json!({"id": model.name, "object": "model", "created": 0, "owned_by": "clairvoy"}))
        .collect();
    let matcher = RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Path("/v1/models".to_owned())),
        headers: vec![exact(":method", "GET")],
        ..RouteMatch::default()
    };
    json_response(matcher, 200, json!({"object": "list", "data": data}).to_string())
}

pub(super) fn error_route(headers: Vec<HeaderMatcher>, error: &ApiError) -> Route {
    json_response(any_path(headers), error.status, error.body())
}

fn json_response(matcher: RouteMatch, status: u32, body: String) -> Route {
    Route {
        r#match: Some(matcher),
        action: Some(route::Action::DirectResponse(DirectResponseAction {
            status,
            body: Some(inline(body)),
            ..DirectResponseAction::default()
        })),
        response_headers_to_add: vec![set_header("content-type", "application/json")],
        ..Route::default()
    }
}

pub(super) fn set_header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

fn any_path(headers: Vec<HeaderMatcher>) -> RouteMatch {
    RouteMatch {
        path_specifier: Some(route_match::PathSpecifier::Prefix("/".to_owned())),
        headers,
        ..RouteMatch::default()
    }
}

fn exact(name: &str, value: &str) -> HeaderMatcher {
    header(name, string_matcher::MatchPattern::Exact(value.to_owned()))
}

pub(super) fn header(name: &str, pattern: string_matcher::MatchPattern) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(StringMatcher {
            match_pattern: Some(pattern),
            ..StringMatcher::default()
        })),
        ..HeaderMatcher::default()
    }
}
