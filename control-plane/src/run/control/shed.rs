mod told;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::config::{Model, ModelLane, Shedding};
use crate::decide::{
    Ahead, BackendShare, Clamp, InForce, Refused, ShedDecision, ShedInput, ShedLaw, ShedState, decide_shed,
};
use crate::fleet::{Backend, Demand};
use crate::store::DecisionRow;
use crate::view::Change;

use super::super::steer::{Steered, Steering, pool_capacity, share_capacity};
use super::Core;

/// A part that moves by less is not published, unless it begins or ends.
const DEAD_BAND: f64 = 0.02;
/// While requests are refused logs that tell nothing for this long are lost, seconds, if so many requests came meanwhile.
const LOST_AFTER_SECONDS: f64 = 5.0;
const LEAST_MISSED: f64 = 20.0;

/// What is refused of one model's requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::run) struct Shed {
    state: ShedState,
    /// Parts of the lanes as they were last published, before the rung: batch, interactive.
    published: (f64, f64),
    /// Since when these are not both nothing.
    since: Option<DateTime<Utc>>,
    /// Why, in the words of the last decision.
    reason: String,
    /// An operator was told that requests are refused.
    is_noted: bool,
}

impl Shed {
    /// Whether a part has moved by enough to be published.
    fn has_moved(&self, decision: &ShedDecision) -> bool {
        let moved = |before: f64, after: f64| {
            let ends = after == 0.0 && !decision.state.is_on;
            before != after && ((before - after).abs() >= DEAD_BAND || ends || after == 1.0)
        };
        moved(self.published.0, decision.batch) || moved(self.published.1, decision.interactive)
    }

    fn sheds(&self) -> bool {
        self.published != (0.0, 0.0)
    }
}

/// What is recorded of a decision to refuse.
#[derive(Deserialize)]
struct Inputs {
    law: ShedLaw,
    previous: ShedState,
    #[serde(flatten)]
    input: ShedInput,
}

/// Makes a decision to refuse again from its record.
///
/// # Errors
/// Says why it cannot be made again.
pub(crate) fn explain_shed(row: &DecisionRow) -> Result<ShedDecision, String> {
    let inputs = Inputs::deserialize(&row.inputs)
        .map_err(|error| format!("its record is of another version of Clairvoy: {error}"))?;
    Ok(decide_shed(&inputs.input, &inputs.previous, &inputs.law, row.at))
}

impl Core {
    /// Decides what is refused of a model's requests; true when Envoys are to be told.
    pub(super) fn decide_shedding(&mut self, model: &Model, demand: &Demand, now: DateTime<Utc>) -> bool {
        // Of a report the rates are half its interval old, in the mean.
        let lag_seconds = self.fleet.reports().lag().as_seconds_f64() / 2.0;
        let law = ShedLaw { lag_seconds, ..law(&model.shedding) };
        let input = self.shed_input(model, demand, now);
        let is_in_force = input.in_force.batch > 0.0 || input.in_force.interactive > 0.0;
        self.fleet.keep_capacities(&model.name, is_in_force);
        let shed = self.sheds.entry(model.name.clone()).or_default();
        let previous = shed.state.clone();
        let decision = decide_shed(&input, &previous, &law, now);
        shed.state = decision.state.clone();
        shed.reason = decision.reason.clone();
        let has_moved = shed.has_moved(&decision);
        let (before, after) = (shed.published, (decision.batch, decision.interactive));
        if has_moved {
            shed.published = after;
            shed.since = if shed.sheds() { shed.since.or(Some(now)) } else { None };
        }
        // It may be over some time after the last part of it.
        let ended = shed.is_noted && shed.published == (0.0, 0.0) && !decision.state.is_on;
        let began = !shed.is_noted && shed.published != (0.0, 0.0);
        shed.is_noted = (shed.is_noted || began) && !ended;
        self.note_shedding(model, began, ended, &decision.reason);
        if !has_moved {
            return false;
        }
        let change = |lane: &str, from: f64, to: f64| Change {
            target: lane.to_owned(),
            from: Some(from),
            to: Some(to),
            reason: decision.reason.clone(),
        };
        let changes = [change("batch", before.0, after.0), change("interactive", before.1, after.1)];
        let inputs = json!({ "law": law, "previous": previous });
        let mut steered = Steered {
            kind: "shed",
            summary: summary(after, &decision.reason),
            changes: changes.into_iter().filter(|change| change.from != change.to).collect(),
            inputs: merged(inputs, &input),
        };
        if model.enforced_share() < 1.0 {
            steered.inputs["rung"] = model.rung.name().into();
        }
        self.record(&model.name, None, steered, now);
        model.enforced_share() > 0.0
    }

    fn note_shedding(&mut self, model: &Model, began: bool, ended: bool, reason: &str) {
        let (name, verb) = (&model.name, if model.enforced_share() > 0.0 { "are" } else { "would be" });
        if began {
            self.note("warning", format!("requests for model {name} {verb} refused: {reason}"));
        } else if ended {
            self.note("info", format!("no requests for model {name} {verb} refused any more: {reason}"));
        }
    }

    fn shed_input(&self, model: &Model, demand: &Demand, now: DateTime<Utc>) -> ShedInput {
        let name = model.name.as_str();
        let of_model: Vec<&Backend> = self.fleet.of_model(name).collect();
        let steering = self.steering.get(name);
        let latest = steering.and_then(|steering| steering.latest.as_ref());
        // While these take requests, what they serve counts, too.
        let spare: Vec<&Backend> = steering
            .into_iter()
            .flat_map(Steering::spare_in_use)
            .filter_map(|address| self.fleet.backend(address))
            .collect();
        let shares = latest.map(|latest| latest.backends.as_slice()).unwrap_or_default();
        // What a sick one holds back, and could serve if it were well, counts for nothing.
        let serves = |share: &&BackendShare| share.terms.clamp != Some(Clamp::Sick);
        let shares: Vec<&BackendShare> = shares.iter().filter(serves).collect();
        let mix = self.fleet.mix(name, now);
        let pools: BTreeSet<&str> = of_model.iter().map(|backend| backend.pool.as_str()).collect();
        let by_pool: BTreeMap<&str, (bool, Option<f64>)> = pools
            .into_iter()
            .map(|pool| {
                let is_known = pool_capacity(&self.config, &of_model, pool).is_some();
                (pool, (is_known, share_capacity(&self.config, &of_model, pool, &mix)))
            })
            .collect();
        // Requests/s at its present speed; the law has a guess for those of which nothing is known.
        let capacity = |backend: &Backend, by_law: f64| {
            let (is_known, of_pool) = by_pool.get(backend.pool.as_str()).copied().unwrap_or_default();
            Some(by_law)
                .filter(|rps| *rps > 0.0)
                .or_else(|| Some(of_pool? / backend.slowdown().max(0.1)))
                .filter(|_| is_known || backend.profile().is_some())
        };
        let placed = || {
            shares
                .iter()
                .filter_map(|share| Some((self.fleet.backend(share.address)?, share.terms.capacity_rps)))
        };
        let all = || placed().chain(spare.iter().map(|backend| (*backend, 0.0)));
        let known: Vec<f64> = all().filter_map(|(backend, by_law)| capacity(backend, by_law)).collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        let count = shares.len() + spare.len();
        let samples = || all().filter_map(|(backend, _)| backend.sample.as_ref());
        let waiting: f64 = samples().filter_map(|sample| sample.queue_depth).sum();
        let running: Vec<f64> = samples().filter_map(|sample| sample.running).collect();
        let places: f64 = shares.iter().map(|share| share.terms.places).sum();
        let reliance = self.reliance.get(name);
        let relied_on = self.relied_part(model);
        let lanes = demand.lanes;
        let batch_part = match model.lane {
            ModelLane::ByRequest => lanes.batch_part,
            ModelLane::Interactive => Some(0.0),
            ModelLane::Batch => Some(1.0),
        };
        let in_force = self.in_force(model, relied_on);
        let in_force = InForce { at: now, batch: of_either(in_force), interactive: in_force.1 };
        let is_counted = lanes.is_counted && !are_lost(&in_force, demand);
        ShedInput {
            admitted_rps: demand.admitted_rps(),
            refused: is_counted.then_some(Refused {
                batch_rps: lanes.batch_refused_rps,
                interactive_rps: lanes.interactive_refused_rps,
            }),
            batch_part,
            // Where too little of what is decided is in force, refusals would never tell.
            by_request: model.lane == ModelLane::ByRequest && model.enforced_share() > 0.5,
            in_force,
            forecast: self.nearest_forecast(name, now),
            capacity_rps: (2 * known.len() >= count.max(1)).then_some(mean * count as f64),
            backends: count,
            in_flight: (!running.is_empty()).then(|| running.iter().sum::<f64>() + waiting),
            waiting,
            // Of the spare ones they are not known.
            places: (places > 0.0 && spare.is_empty()).then_some(places),
            // What goes by capacity shares is not dropped.
            most_interactive: if model.steers() && relied_on > 0.0 {
                model.shedding.interactive
            } else {
                0.0
            },
            is_fresh: reliance.is_some_and(|reliance| reliance.cause.is_none()),
        }
    }

    /// Parts of the lanes that Envoys refuse.
    fn in_force(&self, model: &Model, relied_on: f64) -> (f64, f64) {
        let (batch, interactive) = self.sheds.get(&model.name).map_or((0.0, 0.0), |shed| shed.published);
        (batch * model.enforced_share(), interactive * relied_on)
    }

    /// The forecast of the nearest step that is not over, from now on.
    fn nearest_forecast(&self, model: &str, now: DateTime<Utc>) -> Option<Ahead> {
        let step_seconds = self.step_seconds();
        let forecast = &self.fresh_forecast(model, now)?.forecast;
        let ahead = forecast.points.iter().filter_map(|point| {
            let middle = point.target_step as f64 + 0.5 * f64::from(point.target_steps.max(1));
            let seconds = middle * step_seconds as f64 - now.timestamp_millis() as f64 / 1000.0;
            (seconds > 0.0).then_some(Ahead { rps: point.quantiles.q50(), seconds })
        });
        ahead.min_by(|left, right| left.seconds.total_cmp(&right.seconds))
    }
}

/// Part of the batch requests that is refused: a route refuses some, and of the others the cluster drops as many as of all.
fn of_either((by_route, by_cluster): (f64, f64)) -> f64 {
    1.0 - (1.0 - by_route) * (1.0 - by_cluster)
}

/// Whether access logs are lost: while requests are refused they tell something each second, unless next to none come.
fn are_lost(in_force: &InForce, demand: &Demand) -> bool {
    let is_in_force = in_force.batch > 0.0 || in_force.interactive > 0.0;
    is_in_force
        && demand.lanes.silent_seconds.is_some_and(|seconds| {
            seconds > LOST_AFTER_SECONDS && seconds * demand.admitted_rps() >= LEAST_MISSED
        })
}

fn law(shedding: &Shedding) -> ShedLaw {
    ShedLaw {
        enabled: shedding.enabled,
        begin_utilisation: shedding.begin_utilisation,
        target_utilisation: shedding.target_utilisation,
        ramp_per_second: shedding.ramp,
        ..ShedLaw::default()
    }
}

fn merged(mut inputs: serde_json::Value, input: &ShedInput) -> serde_json::Value {
    if let (Some(all), Ok(serde_json::Value::Object(more))) =
        (inputs.as_object_mut(), serde_json::to_value(input))
    {
        all.extend(more);
    }
    inputs
}

fn summary((batch, interactive): (f64, f64), reason: &str) -> String {
    match (batch > 0.0, interactive > 0.0) {
        (false, false) => format!("nothing is refused any more: {reason}"),
        (_, false) => format!("{:.0} % of batch is refused: {reason}", 100.0 * batch),
        (_, true) => format!(
            "{:.0} % of batch and {:.0} % of interactive is refused: {reason}",
            100.0 * batch,
            100.0 * interactive
        ),
    }
}

#[cfg(test)]
mod tests;
