use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::orca::is_metric;
use super::validate::Fault;
use super::{Config, Model, Span};

/// How a model's requests are spread over its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Shares by capacity and by what is predicted; inside a group of equal backends the one with the fewest requests.
    #[default]
    Predictive,
    /// Shares by capacity alone, in the same form.
    Static,
    /// In turn.
    RoundRobin,
    /// In turn, in proportion to capacity.
    WeightedRoundRobin,
    /// Of two at random the one with fewer active requests.
    LeastRequest,
    /// In proportion to capacity, divided by the active requests plus one.
    WeightedLeastRequest,
    /// At random.
    Random,
    /// By a hash on a ring: requests that are alike stay with one backend.
    RingHash,
    /// By a hash in a table: as `ring_hash`, evener, and more requests move when backends come or go.
    Maglev,
    /// In proportion to what backends say in their answers (ORCA): requests/s by utilisation. They have to tell both.
    Orca,
    /// In inverse proportion to how long answers took of late, divided by the active requests plus one.
    LeastResponseTime,
}

impl Policy {
    /// Whether requests that are alike stay with one backend.
    pub fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }

    /// Whether groups of backends have shares; else each backend has a weight of its own, or none.
    pub fn has_groups(self) -> bool {
        matches!(self, Self::Predictive | Self::Static)
    }
}

/// How a model is balanced.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelBalance {
    /// The policy (default `predictive`).
    pub policy: Policy,
    /// With `ring_hash` and `maglev`: what makes requests alike; the first that a request has counts.
    pub hash_on: Vec<HashOn>,
    /// With `orca`: metrics of the reports of which the highest is the utilisation where `application_utilization` is
    /// not told, such as `named_metrics.kv_cache_usage_perc`. Left out: the CPU's.
    pub utilisation: Vec<String>,
    /// With `predictive`: part of the requests that goes the way of the shortest round trips, 0 to 1, each zone of Envoys
    /// having shares of its own (default 0: all have the same). Groups get what they would get without it.
    pub zone_preference: f64,
    /// With `predictive`: how far pools whose requests are cheaper, by `pools[].price_per_hour`, go first, 0 to 1 (default 0). That
    /// fills none beyond `slo.target_utilisation`.
    pub cost_weight: f64,
}

/// What makes requests alike.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HashOn {
    /// The address that the connection comes from.
    SourceIp,
    /// A header of the request.
    Header(String),
    /// A cookie. With `ttl` Envoy gives one to clients that have none.
    Cookie {
        /// Its name.
        name: String,
        /// How long clients keep it; left out: Envoy makes none. 0s: until the browser is closed.
        #[serde(default)]
        ttl: Option<Span>,
    },
}

impl HashOn {
    fn fault(&self) -> Option<String> {
        let (what, name) = match self {
            Self::SourceIp => return None,
            Self::Header(name) => ("header", name),
            Self::Cookie { name, .. } => ("cookie", name),
        };
        let is_name = !name.is_empty()
            && name.len() <= 100
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
        (!is_name).then(|| format!("{name:?} is no name of a {what}"))
    }
}

impl Config {
    pub(super) fn check_balance_of_models(&self, root: &Path, fault: &mut Fault<'_>) {
        for (index, model) in self.models.iter().enumerate() {
            let path = root.join("models").join(index).join("balance");
            let balance = &model.balance;
            match (balance.policy.hashes(), balance.hash_on.is_empty()) {
                (true, true) => fault(
                    path.join("policy"),
                    "needs `hash_on`: what makes requests alike, as `[{ header: x-user }, source_ip]`"
                        .to_owned(),
                ),
                (false, false) => fault(
                    path.join("hash_on"),
                    "is for the policies `ring_hash` and `maglev` only".to_owned(),
                ),
                _ => {}
            }
            for (position, hash_on) in balance.hash_on.iter().enumerate() {
                if let Some(message) = hash_on.fault() {
                    fault(path.join("hash_on").join(position), message);
                }
            }
            if balance.policy != Policy::Orca && !balance.utilisation.is_empty() {
                fault(path.join("utilisation"), "is for the policy `orca` only".to_owned());
            }
            for (position, name) in balance.utilisation.iter().enumerate() {
                if !is_metric(name) {
                    let message = format!("{name:?} is no metric of ORCA, as `named_metrics.NAME`");
                    fault(path.join("utilisation").join(position), message);
                }
            }
            if !(0.0..=1.0).contains(&balance.cost_weight) {
                fault(path.join("cost_weight"), "must be 0 to 1".to_owned());
            } else if balance.cost_weight > 0.0 {
                self.check_cost_weight(model, &path.join("cost_weight"), fault);
            }
            if balance.policy == Policy::LeastResponseTime && !self.telemetry.access_log.enabled {
                let message = "Envoys tell how long answers take in their access log, and `telemetry.access_log.enabled` is false";
                fault(path.join("policy"), message.to_owned());
            }
        }
    }

    fn check_cost_weight(&self, model: &Model, path: &Path, fault: &mut Fault<'_>) {
        let prices = model.pools.iter().filter_map(|name| self.pool(name)?.price_per_hour);
        if model.balance.policy != Policy::Predictive {
            fault(path.clone(), "is for the policy `predictive` only".to_owned());
        } else if prices.count() == 0 {
            let message = "needs prices: give the model's pools a `price_per_hour`";
            fault(path.clone(), message.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(balance: &str) -> Result<Config, String> {
        parse(&format!("models: [{{ name: m, pools: [p], balance: {balance} }}]\npools: [{{ name: p }}]\n"))
    }

    #[test]
    fn policies_are_named_as_users_know_them() {
        let text = "{ policy: ring_hash, hash_on: [{ header: x-user }, { cookie: { name: sid, ttl: 1h } }, source_ip] }";
        let config = config(text).unwrap();
        let balance = &config.models[0].balance;
        assert_eq!(balance.policy, Policy::RingHash);
        assert_eq!(balance.hash_on.len(), 3);
        assert_eq!(balance.hash_on[2], HashOn::SourceIp);
        assert_eq!(parse("models: []\n").unwrap().models.len(), 0);
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        for (balance, expected) in [
            ("{ policy: fastest }", "fastest"),
            ("{ policy: maglev }", "needs `hash_on`"),
            ("{ hash_on: [source_ip] }", "`ring_hash` and `maglev` only"),
            ("{ policy: maglev, hash_on: [{ header: \"x user\" }] }", "no name of a header"),
            ("{ policy: random, utilisation: [cpu_utilization] }", "`orca` only"),
            ("{ policy: orca, utilisation: [kv] }", "no metric of ORCA"),
        ] {
            let faults = config(balance).unwrap_err();
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
    }
}
