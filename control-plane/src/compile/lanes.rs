use envoy_types::pb::envoy::config::core::v3::{RoutingPriority, RuntimeFractionalPercent};
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, Route, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;

use crate::config::{LaneRules, MaxRequests, ModelLane};
use crate::envoy::{Lane, refusal_route, shed_key};

use super::errors::BATCH_REFUSED;
use super::routes::{error_route, header, set_header};

/// Carries what a request says of its lane from the filters to the routes; removed before the request goes on.
pub(super) const LANE_HEADER: &str = "x-clairvoy-lane";
/// Between what the path, the header and the body say; no sign has it.
const SEPARATOR: char = '|';

/// The lanes of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct LanesIntent {
    /// Which requests are in which.
    pub lane: ModelLane,
    /// Most requests that one Envoy has running in each.
    pub max_requests: MaxRequests,
    /// Whether batch requests may be refused at all; else there is no route for it.
    pub refuses: bool,
    /// When a refused batch request may come again, seconds.
    pub retry_after_seconds: u64,
    /// Part of the batch requests that is refused as long as somebody stands by it, in millionths.
    pub batch_refused: u32,
    /// Part of the requests that go by predictions that is refused, in millionths. It ends with the predictions.
    pub predictive_refused: u32,
}

impl Default for LanesIntent {
    fn default() -> Self {
        Self {
            lane: ModelLane::default(),
            max_requests: MaxRequests::default(),
            refuses: false,
            retry_after_seconds: 10,
            batch_refused: 0,
            predictive_refused: 0,
        }
    }
}

/// What the internal header is made of: the path, where that is a sign, what the client's header says, and the body's
/// `service_tier`. It overwrites whatever a client sent under that name. The path comes first: what a client writes into the
/// others cannot hide it.
pub(super) fn signs(rules: &LaneRules, body: &str) -> String {
    let path = if rules.paths.is_empty() { String::new() } else { format!("%REQ(:path)%{SEPARATOR}") };
    format!("{path}%REQ({})%{SEPARATOR}{body}", rules.header)
}

/// The lanes of a model's requests and what tells them apart, in the order in which they are asked.
pub(super) fn lanes(model: ModelLane, rules: &LaneRules) -> Vec<(Lane, Option<HeaderMatcher>)> {
    match model {
        ModelLane::Interactive => vec![(Lane::Interactive, None)],
        ModelLane::Batch => vec![(Lane::Batch, None)],
        ModelLane::ByRequest if rules.has_signs() => {
            let regex = RegexMatcher { regex: pattern(rules), ..RegexMatcher::default() };
            let can_wait = header(LANE_HEADER, MatchPattern::SafeRegex(regex));
            vec![(Lane::Batch, Some(can_wait)), (Lane::Interactive, None)]
        }
        ModelLane::ByRequest => vec![(Lane::Interactive, None)],
    }
}

/// Matches the internal header of requests that can wait, as a whole.
fn pattern(rules: &LaneRules) -> String {
    // Signs are letters, digits, `-`, `_` and `.`, and `/` in paths.
    let any_of = |signs: &[String]| format!("({})", signs.join("|").replace('.', "\\."));
    let mut ways = Vec::new();
    if !rules.header_values.is_empty() {
        let behind_the_path = if rules.paths.is_empty() { String::new() } else { format!(".*\\{SEPARATOR}") };
        ways.push(format!("{behind_the_path}{}\\{SEPARATOR}.*", any_of(&rules.header_values)));
    }
    if !rules.service_tiers.is_empty() {
        ways.push(format!(".*\\{SEPARATOR}{}", any_of(&rules.service_tiers)));
    }
    if !rules.paths.is_empty() {
        let paths: Vec<String> =
            rules.paths.iter().map(|path| path.trim_end_matches('/').to_owned()).collect();
        ways.push(format!("{}([/?].*)?\\{SEPARATOR}.*", any_of(&paths)));
    }
    format!("(?i)({})", ways.join("|"))
}

/// Envoy's queue and circuit breaker of a lane.
pub(super) fn priority(lane: Lane) -> RoutingPriority {
    match lane {
        Lane::Interactive => RoutingPriority::High,
        Lane::Batch => RoutingPriority::Default,
    }
}

/// Refuses batch requests of a model as far as the runtime layer says so: without it, none.
pub(super) fn refusal(model: &str, lanes: &LanesIntent, headers: Vec<HeaderMatcher>) -> Route {
    let mut route = error_route(headers, &BATCH_REFUSED);
    route.name = refusal_route(model);
    let seconds = lanes.retry_after_seconds.to_string();
    route.response_headers_to_add.push(set_header("retry-after", &seconds));
    route.r#match = route.r#match.map(|matcher| RouteMatch {
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(FractionalPercent::default()),
            runtime_key: shed_key(model),
        }),
        ..matcher
    });
    route
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sign_of_any_kind_is_enough() {
        assert_eq!(pattern(&LaneRules::default()), "(?i)((batch)\\|.*|.*\\|(flex|batch))");
        let only_tier = LaneRules {
            header_values: Vec::new(),
            service_tiers: vec!["v1.5".into()],
            ..LaneRules::default()
        };
        assert_eq!(pattern(&only_tier), "(?i)(.*\\|(v1\\.5))");
        let with_path = LaneRules { paths: vec!["/v1/embeddings".into()], ..only_tier.clone() };
        assert_eq!(pattern(&with_path), "(?i)(.*\\|(v1\\.5)|(/v1/embeddings)([/?].*)?\\|.*)");
        assert_eq!(signs(&with_path, "TIER"), "%REQ(:path)%|%REQ(x-request-class)%|TIER");
        let none = LaneRules { service_tiers: Vec::new(), ..only_tier };
        assert_eq!(lanes(ModelLane::ByRequest, &none), [(Lane::Interactive, None)]);
    }
}
