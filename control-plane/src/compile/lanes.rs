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
        ModelLane::ByRequest => {
            let can_wait = patterns(rules).into_iter().map(|regex| {
                let regex = RegexMatcher { regex, ..RegexMatcher::default() };
                (Lane::Batch, Some(header(LANE_HEADER, MatchPattern::SafeRegex(regex))))
            });
            can_wait.chain([(Lane::Interactive, None)]).collect()
        }
    }
}

/// Where a sign stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Header,
    Body,
    Path,
}

/// Letters of the signs in one regular expression: Envoy refuses one whose program has more than 100 steps, of which each letter
/// is one, and the rest of `pattern` at most 30.
const MOST_LETTERS: usize = 60;

/// Match the internal header of requests that can wait, as a whole: one of them is enough.
fn patterns(rules: &LaneRules) -> Vec<String> {
    let lists = [
        (Place::Header, &rules.header_values),
        (Place::Body, &rules.service_tiers),
        (Place::Path, &rules.paths),
    ];
    let mut parts: Vec<Vec<(Place, &str)>> = Vec::new();
    let mut letters = 0;
    for (place, sign) in lists.iter().flat_map(|(place, signs)| signs.iter().map(move |sign| (*place, sign)))
    {
        letters += sign.len();
        match parts.last_mut() {
            Some(part) if letters <= MOST_LETTERS => part.push((place, sign)),
            _ => {
                letters = sign.len();
                parts.push(vec![(place, sign)]);
            }
        }
    }
    parts.iter().map(|part| pattern(part, !rules.paths.is_empty())).collect()
}

fn pattern(signs: &[(Place, &str)], has_path: bool) -> String {
    // Signs are letters, digits, `-`, `_` and `.`, and `/` in paths. `\C` is any byte: what clients send need be no UTF-8.
    let way = |wanted: Place| {
        let of_place = signs.iter().filter(|(place, _)| *place == wanted);
        let signs: Vec<String> =
            of_place.map(|(_, sign)| sign.trim_end_matches('/').replace('.', "\\.")).collect();
        let any = format!("(?:{})", signs.join("|"));
        let behind_path = if has_path { format!("\\C*\\{SEPARATOR}") } else { String::new() };
        let way = match wanted {
            Place::Header => format!("{behind_path}{any}\\{SEPARATOR}\\C*"),
            Place::Body => format!("\\C*\\{SEPARATOR}{any}"),
            Place::Path => format!("{any}(?:[/?]\\C*)?\\{SEPARATOR}\\C*"),
        };
        (!signs.is_empty()).then_some(way)
    };
    let ways: Vec<String> = [Place::Header, Place::Body, Place::Path].into_iter().filter_map(way).collect();
    format!("(?i)(?:{})", ways.join("|"))
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
        assert_eq!(patterns(&LaneRules::default()), [r"(?i)(?:(?:batch)\|\C*|\C*\|(?:flex|batch))"]);
        let with_path = LaneRules {
            header_values: vec!["v1.5".into()],
            service_tiers: Vec::new(),
            paths: vec!["/v1/embeddings".into(), "/".into()],
            ..LaneRules::default()
        };
        let expected = r"(?i)(?:\C*\|(?:v1\.5)\|\C*|(?:/v1/embeddings|)(?:[/?]\C*)?\|\C*)";
        assert_eq!(patterns(&with_path), [expected]);
        assert_eq!(signs(&with_path, "TIER"), "%REQ(:path)%|%REQ(x-request-class)%|TIER");
        let none = LaneRules { header_values: Vec::new(), paths: Vec::new(), ..with_path };
        assert_eq!(lanes(ModelLane::ByRequest, &none), [(Lane::Interactive, None)]);
    }

    #[test]
    fn many_signs_are_in_as_many_expressions_as_envoy_takes() {
        let of_length = |letter: &str, length| vec![letter.repeat(length); 20];
        let most = LaneRules {
            header_values: of_length("h", 50),
            service_tiers: of_length("t", 30),
            paths: of_length("/p", 30),
            ..LaneRules::default()
        };
        let patterns = patterns(&most);
        assert_eq!(patterns.len(), 20 + 10 + 20);
        assert!(patterns.iter().all(|pattern| pattern.len() < 100), "{patterns:?}");
    }
}
