//! Shedding: which part of the requests is refused because more come than can be served.
//!
//! ```text
//! offered = admitted + refused                                 as counted, else admitted / (1 - what was refused of it)
//! ahead   = offered, or more where the forecast says so, by the time that a decision takes to work
//! load    = (ahead + waiting / drain time) / capacity
//! aim     = target * capacity - waiting / drain time           at least half of the former
//! excess  = offered - aim                                      batch first; what is left over, interactive
//! ```
//!
//! What is refused shows neither in load reports nor at the servers. By the admitted alone the load would be gone as soon as
//! it is shed, and come back as soon as it is not; so everything goes by what was offered.

mod demand;
mod parameters;
mod terms;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use demand::offered;
use terms::reason;

pub use demand::{Ahead, InForce, Refused};
pub use parameters::ShedLaw;
pub use terms::{ShedCause, ShedTerms};

/// A longer time between two evaluations counts as this long, seconds.
const LONGEST_STEP_SECONDS: f64 = 2.0;
/// Time for which the load has to be below the target before shedding is over.
const CALM: TimeDelta = TimeDelta::seconds(10);
/// Time for which backends have to show no load before it is over whatever the capacity is said to be: then that is too low.
const IDLE: TimeDelta = TimeDelta::seconds(30);
/// What is refused then falls by this part of the ramp: if the capacity was right after all, that shows before much waits.
const SLOWLY: f64 = 0.1;
/// Least part of the target that is let in while requests wait to be served.
const LEAST_AIM: f64 = 0.5;
/// Only where this part of the places is taken, or as many requests wait as there are backends, does shedding begin:
/// capacities are estimates.
const LEAST_FULL: f64 = 0.5;
/// Batch requests that are no more than this part of the excess do not keep the others from their turn.
const LITTLE: f64 = 0.05;
/// Part of the batch requests that is refused, where next to none have been seen, until refusals tell how many come: long ones
/// are logged late, refused ones at once.
const ASKING: f64 = 0.2;
/// The time to live of what Envoys are told, seconds.
const FORGOTTEN_SECONDS: f64 = 6.0;
/// From here on a lane counts as refused as a whole.
const WHOLE: f64 = 0.999;
/// So little of the excess is left over by rounding alone.
const ROUNDING: f64 = 1e-9;
/// Where refusals are not counted a few of the batch requests are let in, to show how many there are.
const MOST_UNCOUNTED: f64 = 0.95;

/// What shedding sees of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShedInput {
    /// Requests/s that were let in, over [`ShedLaw::window_seconds`].
    pub admitted_rps: f64,
    /// Requests/s that were refused in the same time; none: not counted.
    pub refused: Option<Refused>,
    /// Part of the offered requests that is batch, 0 to 1; none: unknown.
    pub batch_part: Option<f64>,
    /// Whether requests may be batch that were not seen yet.
    #[serde(default)]
    pub by_request: bool,
    /// What Envoys have been told since the last evaluation.
    pub in_force: InForce,
    /// The demand that is forecast.
    pub forecast: Option<Ahead>,
    /// Requests/s that the backends serve with full batches, at the present mix and speed; none: unknown.
    pub capacity_rps: Option<f64>,
    /// Backends that take requests.
    pub backends: usize,
    /// Requests that run and wait at them; none: unknown.
    pub in_flight: Option<f64>,
    /// Requests of these that wait for a place in a batch.
    pub waiting: f64,
    /// Requests that fit into their batches; none: unknown.
    pub places: Option<f64>,
    /// Largest part of the interactive requests that may be refused, 0 to 1.
    pub most_interactive: f64,
    /// Whether telemetry is fresh, and somebody listens.
    pub is_fresh: bool,
}

/// What shedding remembers from one evaluation to the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShedState {
    /// Parts of the lanes that should be refused.
    pub batch: f64,
    /// Likewise.
    pub interactive: f64,
    /// Whether there is an overload.
    pub is_on: bool,
    /// Since when the load has been below the target.
    pub calm_since: Option<DateTime<Utc>>,
    /// Since when backends have shown no load.
    pub idle_since: Option<DateTime<Utc>>,
    /// When it was last evaluated.
    pub at: Option<DateTime<Utc>>,
    /// What was in force, oldest first.
    pub recent: Vec<InForce>,
}

/// Which part of each lane is to be refused, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShedDecision {
    /// Part of the batch requests, 0 to 1.
    pub batch: f64,
    /// Part of the interactive requests, 0 to 1.
    pub interactive: f64,
    /// How that came about.
    pub terms: ShedTerms,
    /// The same in words.
    pub reason: String,
    /// What is to be remembered.
    pub state: ShedState,
}

/// Decides what is refused of a model's requests. The same values give the same decision.
pub fn decide_shed(
    input: &ShedInput,
    previous: &ShedState,
    law: &ShedLaw,
    now: DateTime<Utc>,
) -> ShedDecision {
    let law = law.within_bounds();
    let mut state = previous.clone();
    // A clock that is set back begins anew.
    for since in [&mut state.calm_since, &mut state.idle_since] {
        *since = since.map(|since| since.min(now));
    }
    let elapsed = state.at.replace(now).map_or(0.0, |at| (now - at).as_seconds_f64());
    let step = law.ramp_per_second * elapsed.clamp(0.0, LONGEST_STEP_SECONDS);
    demand::remember(&mut state.recent, input.in_force, now, &law);

    let mut terms = load(input, &state.recent, &law);
    if terms.cause.is_none() {
        state.look(&terms, input, &law, now);
    } else {
        (state.is_on, state.calm_since, state.idle_since) = (false, None, None);
    }
    // After a longer pause Envoys have forgotten what they were told: what is refused anew rises from nothing, as backends that
    // were sent everything meanwhile may show something else.
    let lasts = elapsed <= FORGOTTEN_SECONDS;
    let before = if lasts { (unit(previous.batch), unit(previous.interactive)) } else { (0.0, 0.0) };
    // Without a view it goes step by step: what is let in again may still be too much for the backends.
    let (goal, falls_by) = if terms.cause.is_some() {
        ((0.0, 0.0), step)
    } else {
        let needed = terms.divide(input, before);
        (if state.is_on { needed } else { released(before, needed, SLOWLY * step) }, 1.0)
    };
    let moved = |before: f64, goal: f64| goal.clamp((before - falls_by).max(0.0), (before + step).min(1.0));
    (state.batch, state.interactive) = (moved(before.0, goal.0), moved(before.1, goal.1));
    terms.wanted_batch = goal.0;
    terms.wanted_interactive = goal.1;
    ShedDecision {
        batch: state.batch,
        interactive: state.interactive,
        reason: reason(&terms, &state),
        terms,
        state,
    }
}

/// What is left of the parts when it is over although as much is still `needed` by the estimates: interactive is let in first.
fn released(before: (f64, f64), needed: (f64, f64), step: f64) -> (f64, f64) {
    let less = |before: f64, needed: f64| (before - step).min(needed).max(0.0);
    if before.1 > 0.0 {
        (before.0.min(needed.0), less(before.1, needed.1))
    } else {
        (less(before.0, needed.0), 0.0)
    }
}

fn unit(part: f64) -> f64 {
    if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 }
}

/// The load, and the reason for which nothing can be said of it.
fn load(input: &ShedInput, recent: &[InForce], law: &ShedLaw) -> ShedTerms {
    let mut terms = ShedTerms::default();
    let finite = |value: f64| value.is_finite() && value >= 0.0;
    let demand = offered(input, recent, law);
    let capacity = input.capacity_rps.filter(|rps| rps.is_finite() && *rps > 0.0);
    terms.cause = if !law.enabled {
        Some(ShedCause::Off)
    } else if !input.is_fresh {
        Some(ShedCause::Stale)
    } else if capacity.is_none() {
        Some(ShedCause::UnknownCapacity)
    } else if demand.is_none() {
        Some(ShedCause::UnknownLanes)
    } else if input.in_flight.is_none_or(|count| !finite(count)) || !finite(input.waiting) {
        Some(ShedCause::UnknownQueue)
    } else {
        None
    };
    let (Some((offered_rps, batch_rps)), Some(capacity_rps)) = (demand, capacity) else { return terms };
    terms.offered_rps = offered_rps;
    terms.offered_batch_rps = batch_rps;
    terms.capacity_rps = capacity_rps;
    terms.ahead_rps = match input.forecast {
        Some(ahead) if finite(ahead.rps) && ahead.rps > offered_rps && ahead.seconds > 0.0 => {
            offered_rps + (ahead.rps - offered_rps) * (law.lead_seconds / ahead.seconds).min(1.0)
        }
        _ => offered_rps,
    };
    terms.waiting_rps = if finite(input.waiting) { input.waiting } else { 0.0 } / law.drain_seconds;
    terms.load = (terms.ahead_rps + terms.waiting_rps) / capacity_rps;
    // Of a rate that was counted over a window: one standard deviation of chance.
    terms.noise = (offered_rps / law.window_seconds).sqrt() / capacity_rps;
    let is_crowded = input.waiting >= input.backends.max(1) as f64;
    let is_full = input.places.is_some_and(|places| {
        places > 0.0 && input.in_flight.is_some_and(|in_flight| in_flight >= LEAST_FULL * places)
    });
    terms.shows = is_crowded || is_full;
    terms.is_told = input.refused.is_some() && demand::tells(recent, law);
    let target_rps = law.target_utilisation * capacity_rps;
    terms.aim_rps = (target_rps - terms.waiting_rps).max(LEAST_AIM * target_rps);
    terms
}

impl ShedState {
    /// Looks whether an overload begins or is over.
    fn look(&mut self, terms: &ShedTerms, input: &ShedInput, law: &ShedLaw, now: DateTime<Utc>) {
        let can_refuse = terms.offered_batch_rps > 0.0 || input.most_interactive > 0.0;
        if terms.load > law.target_utilisation {
            self.calm_since = None;
        } else if now - *self.calm_since.get_or_insert(now) >= CALM {
            self.is_on = false;
        }
        if terms.shows || input.waiting > 0.0 {
            self.idle_since = None;
        } else if now - *self.idle_since.get_or_insert(now) >= IDLE {
            self.is_on = false;
        }
        let begins = terms.load - terms.noise >= law.begin_utilisation && terms.shows;
        self.is_on |= begins && can_refuse;
    }
}

impl ShedTerms {
    /// The parts of batch and interactive requests above the aim, with those refused before.
    fn divide(&mut self, input: &ShedInput, before: (f64, f64)) -> (f64, f64) {
        self.excess_rps = (self.offered_rps - self.aim_rps).max(0.0);
        if self.excess_rps <= 0.0 {
            return (0.0, 0.0);
        }
        let is_counted = input.refused.is_some();
        let most_batch = if is_counted { 1.0 } else { MOST_UNCOUNTED };
        let is_little = self.offered_batch_rps <= LITTLE * self.excess_rps;
        let asks = is_little && input.by_request && is_counted && !self.is_told;
        let may_come = input.batch_part.is_some_and(|part| part > 0.0) || (input.by_request && is_counted);
        // Where all of it is too little it is whole, however few there are: a window without any says nothing of the next one.
        let batch = if !may_come {
            0.0
        } else if asks {
            ASKING.max(before.0)
        } else if self.excess_rps >= self.offered_batch_rps {
            most_batch
        } else {
            (self.excess_rps / self.offered_batch_rps).min(most_batch)
        };
        let others = (self.offered_rps - self.offered_batch_rps).max(0.0);
        let left = self.excess_rps - batch * self.offered_batch_rps;
        let is_enough = left <= ROUNDING * self.excess_rps;
        // In their turn: first all that can wait is refused, and that is seen to be too little.
        let is_their_turn = !asks && (is_little || before.0 >= WHOLE * most_batch);
        let most = if is_their_turn { unit(input.most_interactive) } else { 0.0 };
        // It is no reason to let in others that hardly any batch is known.
        let most = if asks { before.1.min(unit(input.most_interactive)) } else { most };
        if others <= 0.0 || is_enough {
            return (batch, 0.0);
        }
        (batch, (left / others).min(most))
    }
}

#[cfg(test)]
mod loop_tests;
#[cfg(test)]
mod tests;
