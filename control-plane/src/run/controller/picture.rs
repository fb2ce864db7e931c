use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};

use clairvoy_forecaster::Standing;

use crate::compile::GroupIntent;
use crate::config::{Model, Pool};
use crate::decide::{BackendShare, Mix};
use crate::fleet::{Backend, Source};
use crate::metrics::Reading;
use crate::view::{
    BackendView, ColdStartView, DemandSource, ExpertView, ForecastView, ModelView, PoolView, RecordView,
    ReplicasView, ShareView, State, Totals,
};

use super::super::control::static_groups;
use super::super::plan::{self, at_cold_start};
use super::super::show::{self, Frame};
use super::super::steer::{Steering, pool_capacity};
use super::Controller;

/// Decisions and events in the live picture.
const LISTED: usize = 20;

impl Controller {
    /// Takes a picture of everything, for the API and the metrics.
    pub(super) fn show(&mut self, now: DateTime<Utc>) {
        let config = self.config();
        let backends = self.backend_views(now);
        let pools_of =
            |model: &Model| model.pools.iter().filter_map(|name| config.pool(name)).collect::<Vec<_>>();
        let state = State {
            now,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            simulated: self
                .core
                .fleet
                .backends()
                .any(|backend| backend.sample.as_ref().is_some_and(|sample| sample.simulated)),
            models: config.models.iter().map(|model| self.model_view(model, &pools_of(model), now)).collect(),
            pools: config
                .models
                .iter()
                .flat_map(|model| pools_of(model).into_iter().map(|pool| (model, pool)).collect::<Vec<_>>())
                .map(|(model, pool)| self.pool_view(model, pool, now))
                .collect(),
            backends,
            proxies: self.outputs.xds.clients().iter().map(show::proxy).collect(),
            quarantined: self.outputs.xds.quarantined().iter().map(show::quarantined).collect(),
            decisions: self.decisions.newest(LISTED),
            totals: self.totals(),
            events: self.events.newest(LISTED),
        };
        let discovery = state.pools.iter().filter_map(|pool| {
            let discovery = pool.discovery.as_ref()?;
            Some((pool.name.as_str(), discovery.stale, discovery.holding))
        });
        self.outputs.discovery.read(discovery);
        self.outputs.metrics.read(&Reading {
            state: &state,
            journal_dropped: self.outputs.journal.dropped().load(Ordering::Relaxed),
            lessons_dropped: self.counts.lessons_dropped.load(Ordering::Relaxed),
        });
        self.outputs.envoy_metrics.read(&state, self.core.fleet.reports().reporters());
        if self.published_once {
            self.outputs.frames.send_replace(Some(Arc::new(Frame::new(state))));
        }
    }

    fn backend_views(&self, now: DateTime<Utc>) -> Vec<BackendView> {
        let all: Vec<&Backend> = self.core.fleet.backends().collect();
        let models = self.core.config.models.iter().map(|model| model.name.as_str());
        let mixes: BTreeMap<&str, Mix> =
            models.map(|model| (model, self.core.fleet.mix(model, now))).collect();
        let usual = Mix::default();
        // Each looked for once: of 10,000 backends every one would look at all others.
        let in_effect =
            self.core.config.models.iter().map(|model| (&*model.name, self.core.in_effect(model)));
        let in_effect: BTreeMap<&str, _> = in_effect.collect();
        let mut pools: BTreeMap<&str, Vec<&Backend>> = BTreeMap::new();
        for backend in &all {
            pools.entry(&backend.pool).or_default().push(backend);
        }
        let mut capacities: BTreeMap<&str, f64> = BTreeMap::new();
        for (pool, backends) in &pools {
            capacities.extend(pool_capacity(&self.core.config, backends, pool).map(|rps| (*pool, rps)));
        }
        let shares: HashMap<(&str, SocketAddr), &BackendShare> = self
            .core
            .steering
            .iter()
            .filter_map(|(model, steering)| Some((model.as_str(), steering.latest.as_ref()?)))
            .flat_map(|(model, latest)| {
                latest.backends.iter().map(move |share| ((model, share.address), share))
            })
            .collect();
        let mut views: Vec<BackendView> = all
            .iter()
            .map(|backend| {
                let zone =
                    self.core.config.pool(&backend.pool).map_or("", |pool| pool.locality.zone.as_str());
                let capacity = capacities.get(backend.pool.as_str()).copied();
                let in_progress = self.core.fleet.reports().in_progress(backend.address);
                let decided = shares.get(&(backend.model.as_str(), backend.address)).copied();
                let model = in_effect.get(backend.model.as_str());
                let mix = mixes.get(backend.model.as_str()).unwrap_or(&usual);
                let model = model.map(|model| &**model);
                let view = show::backend(backend, decided, zone, capacity, model, mix, now);
                BackendView { requests_in_progress: in_progress, ..view }
            })
            .collect();
        views.sort_by(|left, right| {
            (&left.model, &left.pool, &left.address).cmp(&(&right.model, &right.pool, &right.address))
        });
        views
    }

    fn model_view(&self, configured: &Model, pools: &[&Pool], now: DateTime<Utc>) -> ModelView {
        let model = &*self.core.in_effect(configured);
        let demand = self.core.fleet.demand(&model.name, now);
        let step_seconds = self.core.config.forecast.step.as_seconds() as u32;
        let cold_start = pools.iter().map(|pool| pool.replicas.cold_start.as_seconds()).fold(0.0, f64::max);
        let forecast = self.core.fresh_forecast(&model.name, now).and_then(|issued| {
            let nearest = issued.forecast.points.first()?;
            let (horizon_steps, q50, q90) = at_cold_start(&issued.forecast, cold_start, step_seconds)?;
            Some(ForecastView {
                issued_at: issued.at,
                expert: nearest.expert.name().to_owned(),
                error_ratio: nearest.error_ratio,
                cold_start: ColdStartView {
                    horizon_seconds: horizon_steps.saturating_sub(1) * step_seconds,
                    q50,
                    q90,
                },
                record: issued.standings.iter().map(|standing| record(standing, step_seconds)).collect(),
            })
        });
        let shares = self.core.steering.get(&model.name).map(|steering| {
            let groups = if model.follows_decisions() {
                steering.intent(model, &self.core.config).groups
            } else {
                static_groups(steering, &self.core.config)
            };
            let total: f64 = groups.iter().map(|group| f64::from(group.weight)).sum();
            let share = |group: &GroupIntent| {
                let zone = &group.zone;
                let traffic = self.core.fleet.reports().group(&model.name, &group.name);
                ShareView {
                    group: group.name.clone(),
                    locality: format!("{zone}/{}", group.name),
                    share: f64::from(group.weight) / total.max(1.0),
                    requests_per_second: traffic.map(|traffic| traffic.requests_per_second),
                    errors_per_second: traffic.map(|traffic| traffic.errors_per_second),
                    requests_in_progress: traffic.map(|traffic| traffic.in_progress),
                }
            };
            groups.iter().map(share).collect()
        });
        let reliance = self.core.reliance.get(&model.name).filter(|_| model.steers());
        let canary = self.core.canary_view(configured);
        let stepped_back = canary.as_ref().and_then(|canary| canary.stepped_back.as_ref());
        let stepped_back =
            stepped_back.map(|back| (format!("the canary has stepped back: {}", back.reason), back.at));
        let fallback = stepped_back.or_else(|| {
            let reliance = reliance?;
            Some((reliance.cause?.to_string(), reliance.fell_at.unwrap_or(now)))
        });
        let not_chosen = self.core.lone_part(model).filter(|(is_unsteered, _)| *is_unsteered);
        ModelView {
            name: model.name.clone(),
            demand_rps: demand.requests_per_second,
            demand_source: shown(demand.source),
            tokens_per_second: demand.tokens_per_second,
            tokens_source: shown(demand.tokens_source),
            prompt_tokens_per_second: demand.prompt_tokens_per_second,
            step_seconds,
            slo_ttft_seconds: model.slo.ttft_p95.as_seconds(),
            forecast,
            shares: shares.unwrap_or_default(),
            zones: self.core.steering.get(&model.name).map(Steering::zone_views).unwrap_or_default(),
            policy: configured.balance.policy,
            rung: configured.rung.name().to_owned(),
            predictive_ratio: reliance.map_or(0.0, |_| self.core.relied_part(model)),
            fallback: fallback
                .as_ref()
                .map(|(why, _)| why.clone())
                .or_else(|| not_chosen.map(|(_, why)| why)),
            fallback_since: fallback.map(|(_, since)| since),
            canary,
            shed: self.core.shed_view(model),
        }
    }

    fn pool_view(&self, model: &Model, pool: &Pool, now: DateTime<Utc>) -> PoolView {
        let backends: Vec<&Backend> = self.core.fleet.of_model(&model.name).collect();
        let ready = plan::ready(&backends, &pool.name, now);
        let plan = self.core.plans.get(&pool.name);
        PoolView {
            name: pool.name.clone(),
            model: model.name.clone(),
            zone: pool.locality.zone.clone(),
            region: pool.locality.region.clone(),
            replicas: ReplicasView {
                ready,
                planned: plan.map_or(ready, |plan| plan.replicas),
                needed_now: plan.map_or(ready, |plan| plan.needed_now),
                needed_forecast: plan.and_then(|plan| plan.needed_forecast),
                min: pool.replicas.min,
                max: pool.replicas.max,
                cold_start_seconds: pool.replicas.cold_start.as_seconds(),
                reason: plan.map(|plan| plan.reason.clone()).unwrap_or_default(),
            },
            discovery: self.core.discovered.view(&pool.name),
        }
    }

    fn totals(&self) -> Totals {
        let counters = self.writer.counters();
        let signals = self.outputs.deliverer.status();
        Totals {
            telemetry_rows: self.counts.rows_before + counters.rows_written(),
            telemetry_dropped: counters.rows_dropped(),
            telemetry_spooled: counters.in_spool().0,
            scrapes_failed: self.outputs.telemetry.scrapes_failed(),
            forecasts: self.counts.forecasts,
            decisions: self.counts.decisions,
            weight_changes: self.counts.weight_changes,
            webhooks_delivered: signals.delivered,
            webhooks_failed: signals.failed,
        }
    }
}

fn shown(source: Source) -> DemandSource {
    match source {
        Source::Envoys => DemandSource::Envoys,
        Source::Servers => DemandSource::Servers,
    }
}

/// Experts that are shown of one horizon.
const EXPERTS_SHOWN: usize = 3;

fn record(standing: &Standing, step_seconds: u32) -> RecordView {
    let experts = standing.experts.iter().take(EXPERTS_SHOWN);
    RecordView {
        horizon_seconds: standing.horizon_steps.saturating_mul(step_seconds),
        outcomes: standing.outcomes,
        error_ratio: standing.error_ratio,
        skill_ratio: standing.skill_ratio,
        coverage_q90: standing.coverage.map(|[_, _, q90, ..]| q90),
        coverage_q95: standing.coverage.map(|[.., q95, _]| q95),
        baseline: standing.gate.map(|expert| expert.name().to_owned()),
        experts: experts
            .map(|expert| ExpertView { name: expert.expert.name().to_owned(), weight: expert.weight })
            .collect(),
    }
}
