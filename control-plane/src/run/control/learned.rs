use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use clairvoy_forecaster::{Anomaly, AnomalyKind, LatencyTarget};

use crate::config::{Config, Model};
use crate::decide::Verdict;
use crate::fleet::{Findings, NewVerdict};
use crate::learn::{Class, Insight};
use crate::store::ForecastRow;

use super::super::journal::Entry;
use super::{Core, Effect, Issued};

/// The kind under which the profile of a pool's backends is saved.
pub(in super::super) const PROFILE: &str = "profile";

impl Core {
    /// Takes what the learner found.
    pub(crate) fn learned(&mut self, insight: Insight, now: DateTime<Utc>) {
        match insight {
            Insight::Wait(address, _, prediction) => {
                if let Some(backend) = self.fleet.backend_mut(address) {
                    backend.wait = Some(prediction);
                }
            }
            Insight::Forecast(model, forecast, standings) => {
                let step_seconds = self.step_seconds();
                let time = |step: i64| DateTime::<Utc>::from_timestamp(step * step_seconds, 0).unwrap_or(now);
                // A forecast is made when its origin step is over.
                let issued_at = time(forecast.origin_step + 1);
                let rows = forecast.points.iter().map(|point| ForecastRow {
                    model: model.clone(),
                    issued_at,
                    horizon_seconds: i32::try_from(i64::from(point.horizon_steps) * step_seconds)
                        .unwrap_or(i32::MAX),
                    target_at: time(point.target_step),
                    target_seconds: i32::try_from(i64::from(point.target_steps) * step_seconds)
                        .unwrap_or(i32::MAX),
                    q10: point.quantiles.q10(),
                    q50: point.quantiles.q50(),
                    q90: point.quantiles.q90(),
                    q95: point.quantiles.q95(),
                    q99: point.quantiles.q99(),
                    expert: point.expert.name().to_owned(),
                });
                let rows = rows.collect();
                self.effects.push(Effect::Journal(Entry::Forecasts(rows)));
                self.forecasts.insert(model, Issued { at: issued_at, forecast, standings });
            }
            Insight::Capacity(address, capacity) => {
                if let Some(backend) = self.fleet.backend_mut(address) {
                    backend.slo_capacity = capacity;
                }
            }
            Insight::Anomaly(address, findings) => self.found(address, findings),
            Insight::Signs(address, signs) => {
                if let Some(backend) = self.fleet.backend_mut(address) {
                    backend.take_signs(signs);
                }
            }
            Insight::Trained { kind, key, state, at } => {
                let entry = Entry::ModelState { kind: kind.as_str(), key, at, state };
                self.effects.push(Effect::Journal(entry));
            }
            Insight::Refused(message) => self.note("warning", message),
            // The recorder's, who keeps it.
            Insight::Checkpoint(_) => {}
        }
    }

    /// Works out what the backends of each pool have in common, and saves it now and then.
    pub(super) fn look_at_classes(&mut self, now: DateTime<Utc>) {
        for (pool, state) in self.fleet.look_at_classes(now) {
            let entry = Entry::ModelState { kind: PROFILE, key: pool, at: now, state };
            self.effects.push(Effect::Journal(entry));
        }
    }

    /// Judges every backend, and notes who is sick, and who is well again.
    pub(super) fn judge(&mut self, now: DateTime<Utc>) {
        if !self.has_begun {
            self.fleet.take_for_served();
        }
        let config = Arc::clone(&self.config);
        for NewVerdict { address, pool, before, verdict, sign } in self.fleet.judge(&config, now) {
            if verdict == Verdict::Sick {
                let by = sign.map_or("sick", AnomalyKind::name).replace('_', " ");
                let message =
                    format!("{address} in pool {pool} is taken for sick ({by}): it keeps a probing share");
                self.note("warning", message);
            } else if before == Verdict::Sick {
                self.note("info", format!("{address} in pool {pool} is taken for well again"));
            }
        }
    }

    /// What the learner is to know of the pool of a backend.
    pub(super) fn class(&self, address: SocketAddr) -> Option<Arc<Class>> {
        self.classes.get(&self.fleet.backend(address)?.pool).cloned()
    }

    /// Takes what was found wrong with a backend, and notes what is new or over.
    fn found(&mut self, address: SocketAddr, findings: Findings) {
        let Some(backend) = self.fleet.backend_mut(address) else { return };
        let pool = backend.pool.clone();
        let before = backend.findings.replace(findings.clone()).unwrap_or_default().anomalies;
        let is_new = |found: &&Anomaly| before.iter().all(|known| known.kind != found.kind);
        for anomaly in findings.anomalies.iter().filter(is_new) {
            let kind = anomaly.kind.name().replace('_', " ");
            let message = format!("{address} in pool {pool} is anomalous ({kind}): {}", anomaly.reason);
            self.note("warning", message);
        }
        if findings.anomalies.is_empty() && !before.is_empty() {
            self.note("info", format!("{address} in pool {pool} is as usual again"));
        }
    }
}

/// The pools, each with what its model promises.
pub(super) fn classes(config: &Config) -> BTreeMap<String, Arc<Class>> {
    let class = |model: &Model, pool: &String| {
        // `slo.ttft_p95` is of single requests, and a window of load shows a mean: nine windows in ten, the lower bound
        // of a capacity, come nearest to it.
        let ttft_seconds = Some(model.slo.ttft_p95.as_seconds());
        let target = LatencyTarget { ttft_seconds, inter_token_seconds: None };
        (pool.clone(), Arc::new(Class { pool: pool.clone(), target }))
    };
    let of_model = |model: &Model| model.pools.iter().map(|pool| class(model, pool)).collect::<Vec<_>>();
    config.models.iter().flat_map(of_model).collect()
}
