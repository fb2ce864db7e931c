use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::Fault;
use super::{Config, Model, Pool, PoolTelemetry};

/// Longest name of a metric.
const LONGEST: usize = 100;

/// Which metrics of the ORCA reports in a backend's answers mean what, by their names in Envoy: `application_utilization`,
/// `cpu_utilization`, `mem_utilization`, or `named_metrics.NAME`, `utilization.NAME`, `request_cost.NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Orca {
    /// Requests that wait for a place in the batch.
    pub queue_depth: Option<String>,
    /// Requests in the running batch. Left out: those that Envoys have running at the backend, without those that wait.
    pub running: Option<String>,
    /// Part of the KV cache in use, 0 to 1.
    pub kv_used: Option<String>,
    /// GPU utilisation, 0 to 1.
    pub gpu_utilisation: Option<String>,
}

impl Orca {
    /// The metrics that are named, with their fields.
    pub fn metrics(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let fields = [
            ("queue_depth", &self.queue_depth),
            ("running", &self.running),
            ("kv_used", &self.kv_used),
            ("gpu_utilisation", &self.gpu_utilisation),
        ];
        fields.into_iter().filter_map(|(field, name)| Some((field, name.as_deref()?)))
    }
}

impl Config {
    /// The pools of a model whose telemetry is in the answers of their backends.
    pub fn orca_pools(&self, model: &Model) -> impl Iterator<Item = (&Pool, &Orca)> {
        let pools = model.pools.iter().filter_map(|name| self.pool(name));
        pools.filter_map(|pool| Some((pool, pool.orca.as_ref()?)))
    }

    /// The ORCA metrics that Envoys report of a model, sorted.
    pub fn load_metrics(&self, model: &Model) -> Vec<String> {
        let mut names: Vec<String> = self
            .orca_pools(model)
            .flat_map(|(_, orca)| orca.metrics().map(|(_, name)| name.to_owned()))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    pub(super) fn check_orca(&self, root: &Path, fault: &mut Fault<'_>) {
        for (index, pool) in self.pools.iter().enumerate() {
            let Some(orca) = &pool.orca else { continue };
            let path = root.join("pools").join(index);
            if pool.telemetry != PoolTelemetry::Push {
                fault(path.join("orca"), "Envoys push it: set the pool's `telemetry: push`".to_owned());
            }
            let path = path.join("orca");
            if pool.telemetry == PoolTelemetry::Push && !self.telemetry.load_reports.enabled {
                let message = "Envoys tell it in their load reports, and `telemetry.load_reports.enabled` is false: the pool would \
                               never be heard of";
                fault(path.clone(), message.to_owned());
            }
            if orca.metrics().next().is_none() {
                fault(path.clone(), "names no metric".to_owned());
            }
            for (field, name) in orca.metrics() {
                if !is_metric(name) {
                    let message = format!(
                        "{name:?} is no metric of ORCA: `named_metrics.NAME`, `utilization.NAME`, `request_cost.NAME`, \
                         `application_utilization`, `cpu_utilization` or `mem_utilization`"
                    );
                    fault(path.join(field), message);
                }
            }
        }
    }
}

pub(super) fn is_metric(name: &str) -> bool {
    match name.split_once('.') {
        Some(("named_metrics" | "utilization" | "request_cost", key)) => {
            !key.is_empty() && key != "*" && name.len() <= LONGEST && !key.contains(char::is_whitespace)
        }
        Some(_) => false,
        None => matches!(name, "application_utilization" | "cpu_utilization" | "mem_utilization"),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn metrics_are_checked_and_gathered_by_model() {
        let config = |telemetry: &str, orca: &str| {
            parse(&format!(
                "models: [{{ name: m, pools: [p, q] }}]\n\
                 pools: [{{ name: p, telemetry: {telemetry}, orca: {orca} }}, {{ name: q }}]\n"
            ))
        };
        let good =
            "{ queue_depth: named_metrics.waiting, kv_used: utilization.kv, running: named_metrics.waiting }";
        let parsed = config("push", good).unwrap();
        assert_eq!(parsed.load_metrics(&parsed.models[0]), ["named_metrics.waiting", "utilization.kv"]);
        let unheard = "models: [{ name: m, pools: [p] }]\ntelemetry: { load_reports: { enabled: false } }\n\
                       pools: [{ name: p, telemetry: push, orca: { kv_used: utilization.kv } }]\n";
        let faults = parse(unheard).unwrap_err();
        assert!(faults.contains("telemetry.load_reports.enabled"), "{faults}");
        for (telemetry, orca, expected) in [
            ("scrape", good, "telemetry: push"),
            ("push", "{}", "names no metric"),
            ("push", "{ kv_used: kv }", "no metric of ORCA"),
            ("push", "{ kv_used: \"named_metrics.*\" }", "no metric of ORCA"),
        ] {
            let faults = config(telemetry, orca).unwrap_err();
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
    }
}
