use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use uuid::Uuid;

use crate::config::{Model, Rung};
use crate::decide::PoolPlan;
use crate::fleet::Demand;
use crate::signal::ReplicaPlanEvent;
use crate::store::DecisionRow;
use crate::view::Change;

use super::super::decision_id::decision_id;
use super::super::journal::Entry;
use super::super::plan;
use super::super::steer::{Arrivals, Steered};
use super::{Core, Effect, Issued, WEIGHTS};

impl Core {
    /// Decides weights and replicas of every model; what changed is to be published.
    pub(super) fn decide(&mut self, now: DateTime<Utc>) {
        // Publishing without backends that are about to be found would take them from every Envoy.
        if !self.has_begun && self.awaits_dns(now) {
            return;
        }
        let config = Arc::clone(&self.config);
        let begins = !std::mem::replace(&mut self.has_begun, true);
        if begins {
            self.fleet.take_for_served();
        }
        let mut publish = begins;
        for model in &config.models {
            let demand = self.fleet.demand(&model.name, now);
            // Before anything else: what steps back is decided on as such in this second.
            publish |= self.watch_canary(model, now);
            let model = &*self.in_effect(model);
            publish |= self.decide_weights(model, &demand, now);
            publish |= self.decide_shedding(model, &demand, now);
            self.decide_replicas(model, demand.requests_per_second, now);
        }
        if publish {
            self.effects.push(Effect::Publish);
        }
    }

    fn decide_weights(&mut self, model: &Model, demand: &Demand, now: DateTime<Utc>) -> bool {
        let running = (now - self.started_at).as_seconds_f64();
        let zones = self.node_zones(model);
        let steering = self.steering.entry(model.name.clone()).or_default();
        let arrivals = Arrivals { rps: demand.admitted_rps(), zones: &zones };
        let steered = steering.evaluate(model, &self.config, &self.fleet, &arrivals, running, now);
        let steered = steering.share_out(model, &self.config, zones, steered);
        let before = steering.spare_part();
        let spare = steering.stand_by(model, &self.config, &self.fleet, demand.requests_per_second, now);
        let relieved = (before > 0.0, steering.spare_part() > 0.0);
        let taken_anew = self.take_capacities(&model.name, now);
        let relied = self.rely(&model.name, model.predictive_percent(), now);
        let has_changed = steered.is_some() || spare.is_some() || taken_anew;
        if let Some(steering) = self.steering.get_mut(&model.name)
            && steering.is_to_be_saved(has_changed, now)
            && let Ok(state) = serde_json::to_value(steering)
        {
            let entry = Entry::ModelState { kind: WEIGHTS, key: model.name.clone(), at: now, state };
            self.effects.push(Effect::Journal(entry));
        }
        let publish = relied || has_changed;
        let name = &model.name;
        match relieved {
            (false, true) => self.note(
                "warning",
                format!("no backend of model {name} but spare ones can take requests: these take them"),
            ),
            (true, false) => {
                self.note("info", format!("spare backends of model {name} take no requests any more"));
            }
            _ => {}
        }
        if let Some(spare) = spare {
            self.record(&model.name, None, spare, now);
        }
        if let Some(mut steered) = steered {
            if steered.kind == "weights" && model.rung != Rung::Enforce {
                steered.inputs["rung"] = model.rung.name().into();
            }
            // Who takes requests is told on every rung.
            if steered.kind == "membership" && matches!(model.rung, Rung::Shadow | Rung::Advise) {
                steered.inputs["by_capacity_on"] = model.rung.name().into();
            }
            steered.inputs["steered_percent"] = self.relied_on(&model.name, now).into();
            self.record(&model.name, None, steered, now);
        }
        publish
    }

    fn decide_replicas(&mut self, model: &Model, demand_rps: f64, now: DateTime<Utc>) {
        let forecast = self.fresh_forecast(&model.name, now).map(|issued| &issued.forecast);
        let plans = plan::plan(model, &self.config, &self.fleet, forecast, demand_rps, &self.plans, now);
        for plan in plans {
            self.signal(model, &plan, demand_rps, now);
            self.plans.insert(plan.pool.clone(), plan);
        }
    }

    /// Tells the autoscaler when the plan of a pool is another than the one it was told last.
    fn signal(&mut self, model: &Model, plan: &PoolPlan, demand_rps: f64, now: DateTime<Utc>) {
        let Some(pool) = self.config.pool(&plan.pool).cloned() else { return };
        let backends: Vec<_> = self.fleet.of_model(&model.name).collect();
        let ready = plan::ready(&backends, &plan.pool, now);
        let present = plan::present(&backends, &plan.pool);
        let told = *self.signalled.entry(plan.pool.clone()).or_insert(present);
        if told == plan.replicas {
            return;
        }
        self.signalled.insert(plan.pool.clone(), plan.replicas);
        let steered = Steered {
            kind: "replicas",
            summary: format!("{}: {told} → {} replicas: {}", plan.pool, plan.replicas, plan.reason),
            changes: vec![Change {
                target: plan.pool.clone(),
                from: Some(f64::from(told)),
                to: Some(f64::from(plan.replicas)),
                reason: plan.reason.clone(),
            }],
            inputs: json!({ "demand_rps": demand_rps, "ready": ready, "plan": plan }),
        };
        let id = self.record(&model.name, Some(plan.pool.clone()), steered, now);
        let cold_start = pool.replicas.cold_start;
        self.effects.push(Effect::Signal(ReplicaPlanEvent {
            id,
            at: now,
            model: model.name.clone(),
            pool: plan.pool.clone(),
            replicas: plan.replicas,
            current: ready,
            needed_now: plan.needed_now,
            needed_forecast: plan.needed_forecast.unwrap_or(plan.needed_now),
            horizon_seconds: u32::try_from(cold_start.0.as_secs()).unwrap_or(u32::MAX),
            reason: plan.reason.clone(),
            expires_at: now + cold_start.0.max(std::time::Duration::from_secs(60)),
        }));
    }

    pub(super) fn record(
        &mut self,
        model: &str,
        pool: Option<String>,
        steered: Steered,
        now: DateTime<Utc>,
    ) -> Uuid {
        self.numbered =
            if self.numbered.0 == now { (now, self.numbered.1.wrapping_add(1)) } else { (now, 0) };
        let mut row = DecisionRow {
            id: Uuid::nil(),
            at: now,
            kind: steered.kind.to_owned(),
            model: model.to_owned(),
            pool,
            summary: steered.summary,
            inputs: steered.inputs,
            changes: serde_json::to_value(steered.changes).unwrap_or_default(),
        };
        row.id = decision_id(&row, self.numbered.1);
        let id = row.id;
        self.effects.push(Effect::Decided(Box::new(row)));
        id
    }

    /// The newest forecast of a model, while it is one: without demand to go by there is none, and the last guess does
    /// not stay.
    pub(in crate::run) fn fresh_forecast(&self, model: &str, now: DateTime<Utc>) -> Option<&Issued> {
        const LATE_SECONDS: i64 = 10;
        let lasts = TimeDelta::seconds(2 * self.step_seconds() + LATE_SECONDS);
        self.forecasts.get(model).filter(|issued| now - issued.at <= lasts)
    }
}
