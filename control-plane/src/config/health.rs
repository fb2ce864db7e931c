use std::time::Duration;

use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::Fault;
use super::{Config, Engine, Model, Slo, Span};

/// Where a check is given up that the objective allows a longer time: who needs longer for so little does not serve.
const LONGEST_CHECK: Duration = Duration::from_secs(5);
const SHORTEST_CHECK: Duration = Duration::from_secs(2);
/// A connection gets half of the time to first token, so that another backend can still be tried; within a network no more
/// than a second, and never less than a lost packet needs over some distance.
const LONGEST_CONNECT: Duration = Duration::from_secs(1);
const SHORTEST_CONNECT: Duration = Duration::from_millis(250);

/// Requests by which Envoys see for themselves whether a backend is there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthChecks {
    /// What is asked for, by GET: 200 is good. Left out: where the engines of all its pools answer.
    pub path: Option<String>,
    /// Time between two checks of one backend by one Envoy (default 5 s).
    pub interval: Span,
    /// Longest wait for an answer. Left out: `slo.ttft_p95`, 2 s to 5 s and no longer than `interval`.
    pub timeout: Option<Span>,
    /// Checks in a row that have to fail before a backend gets nothing (default 3).
    pub unhealthy_threshold: u32,
    /// Checks in a row that have to be good before it gets requests again (default 2).
    pub healthy_threshold: u32,
}

impl Default for HealthChecks {
    fn default() -> Self {
        Self {
            path: None,
            interval: Span::seconds(5),
            timeout: None,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }
    }
}

/// When an Envoy puts out a backend by the requests that failed there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutlierDetection {
    /// After so many answers 502, 503 or 504 in a row, or requests without one (default 3; 0: not by these).
    pub consecutive_gateway_failure: u32,
    /// After so many answers 5xx in a row (default 5; 0: not by these).
    pub consecutive_5xx: u32,
    /// After so many requests in a row that got no answer: no connection, reset. Left out: they count as gateway failures.
    pub consecutive_local_origin_failure: Option<u32>,
    /// How often it is looked who may come back (default 1 s).
    pub interval: Span,
    /// For how long a backend is out, times how often it was (default 5 s).
    pub base_ejection_time: Span,
    /// For how long at most (default 5 minutes).
    pub max_ejection_time: Span,
    /// Part of the model's backends that may be out at once, percent, rounded down (default 50).
    pub max_ejection_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_gateway_failure: 3,
            consecutive_5xx: 5,
            consecutive_local_origin_failure: None,
            interval: Span::seconds(1),
            base_ejection_time: Span::seconds(5),
            max_ejection_time: Span::seconds(300),
            max_ejection_percent: 50,
        }
    }
}

impl Engine {
    /// Where its servers tell whether they are there; none where that is not known.
    fn health_path(self) -> Option<&'static str> {
        match self {
            Self::Vllm | Self::Sglang | Self::Tgi | Self::Trtllm | Self::Llamacpp => Some("/health"),
            Self::Triton => Some("/v2/health/ready"),
            Self::Auto | Self::Custom => None,
        }
    }
}

impl HealthChecks {
    /// Longest wait for an answer.
    pub fn timeout(&self, slo: &Slo) -> Span {
        let of_objective = slo.ttft_p95.0.clamp(SHORTEST_CHECK, LONGEST_CHECK).min(self.interval.0);
        self.timeout.unwrap_or(Span(of_objective))
    }
}

impl Model {
    /// Longest wait for a connection to a backend.
    pub fn connect_timeout(&self) -> Span {
        let of_objective = (self.slo.ttft_p95.0 / 2).clamp(SHORTEST_CONNECT, LONGEST_CONNECT);
        self.timeouts.connect.unwrap_or(Span(of_objective))
    }
}

impl Config {
    /// What Envoys ask a model's backends for.
    ///
    /// # Errors
    /// Says why that is not known.
    pub fn health_path(&self, model: &Model) -> Result<String, String> {
        if let Some(path) = model.health.as_ref().and_then(|health| health.path.clone()) {
            return Ok(path);
        }
        let checked = model.pools.iter().filter_map(|name| self.pool(name)).filter(|pool| pool.health_checks);
        let mut found: Option<(&str, &str)> = None;
        for pool in checked {
            let Some(path) = pool.engine.health_path() else {
                return Err(format!(
                    "needs `path`: where backends of pool `{}` answer is not known by its `engine`",
                    pool.name
                ));
            };
            let (other, known) = *found.get_or_insert((pool.name.as_str(), path));
            if known != path {
                return Err(format!(
                    "needs a `path` that all answer: pool `{other}` has {known}, `{}` has {path}",
                    pool.name
                ));
            }
        }
        found.map(|(_, path)| path.to_owned()).ok_or_else(|| "has no pool with `health_checks`".to_owned())
    }

    pub(super) fn check_health(&self, root: &Path, fault: &mut Fault<'_>) {
        for (index, model) in self.models.iter().enumerate() {
            let path = root.join("models").join(index);
            if let Some(health) = &model.health {
                let path = path.join("health");
                for (field, message) in health.faults() {
                    fault(path.join(field), message);
                }
                // A pool that does not exist is told of by itself.
                let are_known = model.pools.iter().all(|name| self.pool(name).is_some());
                if are_known && let Err(message) = self.health_path(model) {
                    fault(path, message);
                }
            }
            for (field, message) in model.outlier_detection.faults() {
                fault(path.join("outlier_detection").join(field), message);
            }
            if let Some(connect) = model.timeouts.connect
                && !(0.01..=60.0).contains(&connect.as_seconds())
            {
                fault(path.join("timeouts").join("connect"), "must be 10ms to 1m".to_owned());
            }
        }
        for (index, pool) in self.pools.iter().enumerate() {
            if pool.warm_up.as_seconds() > 600.0 {
                let message = "must be 0s to 10m: then it has the share of its capacity".to_owned();
                fault(root.join("pools").join(index).join("warm_up"), message);
            }
        }
    }
}

impl HealthChecks {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        let is_path = |path: &str| {
            path.starts_with('/')
                && path.len() <= 1000
                && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        };
        if let Some(path) = self.path.as_deref().filter(|path| !is_path(path)) {
            faults.push(("path", format!("{path:?} is no path, as `/health`")));
        }
        if !(0.5..=300.0).contains(&self.interval.as_seconds()) {
            faults.push(("interval", "must be 500ms to 5m".to_owned()));
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero() || timeout > self.interval) {
            faults.push(("timeout", "must be more than 0 and not longer than `interval`".to_owned()));
        }
        for (field, count) in
            [("unhealthy_threshold", self.unhealthy_threshold), ("healthy_threshold", self.healthy_threshold)]
        {
            if !(1..=100).contains(&count) {
                faults.push((field, "must be 1 to 100".to_owned()));
            }
        }
        faults
    }
}

impl OutlierDetection {
    fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        for (field, count) in [
            ("consecutive_gateway_failure", self.consecutive_gateway_failure),
            ("consecutive_5xx", self.consecutive_5xx),
            ("consecutive_local_origin_failure", self.consecutive_local_origin_failure.unwrap_or_default()),
        ] {
            if count > 1000 {
                faults.push((field, "must be 1 to 1000, or 0 for never".to_owned()));
            }
        }
        let seconds = |span: Span| span.as_seconds();
        if !(0.1..=60.0).contains(&seconds(self.interval)) {
            faults.push(("interval", "must be 100ms to 1m".to_owned()));
        }
        if !(0.1..=3600.0).contains(&seconds(self.base_ejection_time)) {
            faults.push(("base_ejection_time", "must be 100ms to 1h".to_owned()));
        }
        if self.max_ejection_time < self.base_ejection_time || seconds(self.max_ejection_time) > 86_400.0 {
            faults.push(("max_ejection_time", "must be `base_ejection_time` to 1day".to_owned()));
        }
        if self.max_ejection_percent > 100 {
            faults.push(("max_ejection_percent", "must be 0 to 100".to_owned()));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(model: &str, pools: &str) -> Result<Config, String> {
        parse(&format!("models:\n- {{ name: m, pools: [p, q], {model} }}\npools: [{pools}]\n"))
    }

    const VLLM: &str = "{ name: p, engine: vllm }, { name: q, engine: sglang }";

    #[test]
    fn no_check_is_made_unless_it_is_asked_for() {
        let config = config("", VLLM).unwrap();
        assert_eq!(config.models[0].health, None);
        assert_eq!(config.models[0].connect_timeout(), Span::seconds(1));
    }

    #[test]
    fn the_path_is_that_of_the_engines_and_times_come_from_the_objective() {
        let short = config("health: {}, slo: { ttft_p95: 800ms }", VLLM).unwrap();
        let model = &short.models[0];
        assert_eq!(short.health_path(model).as_deref(), Ok("/health"));
        let health = model.health.as_ref().unwrap();
        assert_eq!(health.timeout(&model.slo), Span::seconds(2));
        assert_eq!(model.connect_timeout(), Span(Duration::from_millis(400)));
        let long = config("health: { interval: 3s }, slo: { ttft_p95: 20s }", VLLM).unwrap();
        let model = &long.models[0];
        assert_eq!(model.health.as_ref().unwrap().timeout(&model.slo), Span::seconds(3));
        assert_eq!(model.connect_timeout(), Span::seconds(1));
        let triton = "{ name: p, engine: triton }, { name: q, health_checks: false }";
        let triton = config("health: {}", triton).unwrap();
        assert_eq!(triton.health_path(&triton.models[0]).as_deref(), Ok("/v2/health/ready"));
    }

    #[test]
    fn what_cannot_be_is_told_with_its_line() {
        let auto = "{ name: p, engine: vllm }, { name: q }";
        let mixed = "{ name: p, engine: vllm }, { name: q, engine: triton }";
        for (model, pools, expected) in [
            ("health: {}", auto, "pool `q` answer is not known"),
            ("health: {}", mixed, "`p` has /health, `q` has /v2/health/ready"),
            ("health: { path: health }", VLLM, "no path"),
            ("health: { interval: 100ms }", VLLM, "500ms to 5m"),
            ("health: { timeout: 6s }", VLLM, "not longer than `interval`"),
            ("health: { healthy_threshold: 0 }", VLLM, "1 to 100"),
            ("outlier_detection: { max_ejection_percent: 101 }", VLLM, "0 to 100"),
            ("outlier_detection: { base_ejection_time: 10m }", VLLM, "`base_ejection_time` to 1day"),
            ("outlier_detection: { interval: 0s }", VLLM, "100ms to 1m"),
            ("timeouts: { connect: 0s }", VLLM, "10ms to 1m"),
            ("", "{ name: p, warm_up: 11m }, { name: q }", "0s to 10m"),
        ] {
            let faults = config(model, pools).unwrap_err();
            let line = if model.is_empty() { "line 3" } else { "line 2" };
            assert!(
                faults.contains(expected) && faults.contains(line),
                "{expected} is missing in:\n{faults}"
            );
        }
        assert!(config("health: { path: /ping }", mixed).is_ok());
    }
}
