use garde::{Path, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::Fault;
use super::{Config, Policy, Span};

/// Signs in one list.
const MOST_SIGNS: usize = 20;

/// By what a request says that it can wait. One sign is enough.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LaneRules {
    /// A header of the request (default `x-request-class`).
    pub header: String,
    /// Values of this header by which a request is batch, in any case (default `[batch]`); none: the header says nothing.
    pub header_values: Vec<String>,
    /// Values of `service_tier` in the body by which it is, in any case (default `[flex, batch]`); none: it says nothing.
    pub service_tiers: Vec<String>,
    /// Paths whose requests are, with all that is below them, in any case (default none). `/` is the whole gateway.
    pub paths: Vec<String>,
}

impl Default for LaneRules {
    fn default() -> Self {
        Self {
            header: "x-request-class".to_owned(),
            header_values: vec!["batch".to_owned()],
            service_tiers: vec!["flex".to_owned(), "batch".to_owned()],
            paths: Vec::new(),
        }
    }
}

/// The lane of a model's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelLane {
    /// What each request says, by the rules of its gateway; `interactive` without a sign.
    #[default]
    ByRequest,
    /// Somebody waits for the answer, whatever requests say.
    Interactive,
    /// All of them can wait, whatever they say.
    Batch,
}

/// Most requests of a model that one Envoy has running, in each lane. More are answered 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct MaxRequests {
    /// Of the lane `interactive` (default 1 000 000, which is none: queues are the model servers' business).
    #[garde(range(min = 1, max = 1_000_000))]
    pub interactive: u32,
    /// Of the lane `batch` (default 1 000 000). A bound holds without Clairvoy, too; the right one depends on the fleet.
    #[garde(range(min = 1, max = 1_000_000))]
    pub batch: u32,
}

impl Default for MaxRequests {
    fn default() -> Self {
        Self { interactive: 1_000_000, batch: 1_000_000 }
    }
}

/// When and how far requests of a model are refused because more come than it can serve.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Shedding {
    /// Whether any are (default true: only those that said that they can wait, and only in overload).
    pub enabled: bool,
    /// Load at which it begins, as a part of the capacity of all backends (default 0.95).
    #[garde(range(min = 0.1, max = 2.0))]
    pub begin_utilisation: f64,
    /// Load that is left (default 0.85); no more than what is above it is refused.
    #[garde(range(min = 0.1, max = 2.0))]
    pub target_utilisation: f64,
    /// Largest part of the interactive requests that may be refused, once all batch ones are, 0 to 1 (default 0: none).
    #[garde(range(min = 0.0, max = 1.0))]
    pub interactive: f64,
    /// Most by which the refused part of a lane grows in a second (default 0.2).
    #[garde(range(min = 0.01, max = 1.0))]
    pub ramp: f64,
    /// When a refused batch request may come again, as `Retry-After` (default 10 s).
    pub retry_after: Span,
}

impl Default for Shedding {
    fn default() -> Self {
        Self {
            enabled: true,
            begin_utilisation: 0.95,
            target_utilisation: 0.85,
            interactive: 0.0,
            ramp: 0.2,
            retry_after: Span::seconds(10),
        }
    }
}

impl LaneRules {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let is_header = (1..=100).contains(&self.header.len())
            && self.header.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        if !is_header || self.header.to_ascii_lowercase().starts_with("x-clairvoy-") {
            faults.push(("header", format!("{:?} is no name for a header of requests", self.header)));
        }
        let value = "1 to 50 letters, digits, `-`, `_` or `.`";
        let path = "a path of 60 letters at most: `/`, or names of letters, digits, `-`, `_` and `.` with a `/` before each";
        faults.extend(faults_of("header_values", &self.header_values, is_value, value));
        faults.extend(faults_of("service_tiers", &self.service_tiers, is_value, value));
        faults.extend(faults_of("paths", &self.paths, is_path, path));
        faults
    }
}

fn faults_of(
    field: &'static str,
    signs: &[String],
    is_sign: fn(&str) -> bool,
    wanted: &str,
) -> Vec<(&'static str, String)> {
    let too_many =
        (signs.len() > MOST_SIGNS).then(|| format!("{} values: {MOST_SIGNS} at most", signs.len()));
    let odd = signs.iter().find(|sign| !is_sign(sign)).map(|sign| format!("{sign:?} is not {wanted}"));
    too_many.into_iter().chain(odd).map(|message| (field, message)).collect()
}

fn is_value(sign: &str) -> bool {
    (1..=50).contains(&sign.len()) && sign.bytes().all(is_of_a_name)
}

fn is_path(sign: &str) -> bool {
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && name.bytes().all(is_of_a_name);
    let names = sign.strip_prefix('/').map(|names| names.split('/'));
    sign == "/" || (sign.len() <= 60 && names.is_some_and(|mut names| names.all(is_name)))
}

fn is_of_a_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)
}

impl Config {
    pub(super) fn check_lanes(&self, root: &Path, fault: &mut Fault<'_>) {
        for (index, gateway) in self.gateways.iter().enumerate() {
            for (field, message) in gateway.lanes.faults() {
                fault(root.join("gateways").join(index).join("lanes").join(field), message);
            }
        }
        for (index, model) in self.models.iter().enumerate() {
            let path = root.join("models").join(index).join("shedding");
            let shedding = &model.shedding;
            if shedding.target_utilisation > shedding.begin_utilisation {
                let message = "must not be more than `begin_utilisation`".to_owned();
                fault(path.join("target_utilisation"), message);
            }
            let retry_after = shedding.retry_after.0;
            if retry_after.subsec_nanos() != 0 || !(1..=3600).contains(&retry_after.as_secs()) {
                fault(path.join("retry_after"), "must be whole seconds, 1s to 1h".to_owned());
            }
            if shedding.interactive > 0.0 && model.balance.policy != Policy::Predictive {
                let message =
                    "is for the policy `predictive` only: elsewhere it would not end without Clairvoy";
                fault(path.join("interactive"), message.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn lanes_and_shedding_have_defaults() {
        let config = parse("models: [{ name: m, pools: [p] }]\npools: [{ name: p }]\n").unwrap();
        let model = &config.models[0];
        assert_eq!((model.lane, model.max_requests), (ModelLane::ByRequest, MaxRequests::default()));
        assert_eq!(model.shedding, Shedding::default());
        assert_eq!(config.gateways()[0].lanes, LaneRules::default());
    }

    #[test]
    fn what_cannot_be_meant_is_a_fault() {
        for (gateway, model, expected) in [
            ("header: x-clairvoy-lane", "", "header"),
            ("header_values: [\"a|b\"]", "", "header_values"),
            ("service_tiers: [\"\"]", "", "service_tiers"),
            ("paths: [batch]", "", "paths"),
            ("paths: [/batch/]", "", "is not a path"),
            ("paths: [\"/a|b\"]", "", "is not a path"),
            ("paths: [/v1/../v2]", "", "is not a path"),
            ("", "lane: urgent", "urgent"),
            ("", "max_requests: { batch: 0 }", "batch"),
            ("", "shedding: { target_utilisation: 0.99 }", "begin_utilisation"),
            ("", "shedding: { retry_after: 1500ms }", "retry_after"),
            ("", "shedding: { interactive: 0.5 }, balance: { policy: static }", "policy `predictive` only"),
            ("", "shedding: { ramp: 0 }", "ramp"),
        ] {
            let text = format!(
                "gateways: [{{ name: edge, lanes: {{ {gateway} }} }}]\n\
                 models: [{{ name: m, pools: [p], {model} }}]\npools: [{{ name: p }}]\n"
            );
            let faults = parse(&text).unwrap_err();
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
    }
}
