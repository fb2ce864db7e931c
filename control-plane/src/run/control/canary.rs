mod view;

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::config::{Canary as Settings, Model, Rung, proxy_number};
use crate::decide::{
    Block, CANARY_WINDOWS, CanaryDecision, CanaryInput, CanaryLaw, CanaryState, MeasureTerms, Window,
    decide_canary,
};
use crate::store::DecisionRow;
use crate::view::Change;

use super::super::commands::Refusal;
use super::super::journal::Entry;
use super::super::steer::Steered;
use super::{Core, Effect};

/// The kind under which it is saved that a model has stepped back.
pub(in super::super) const CANARY: &str = "canary";

/// The canary of one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::run) struct Canary {
    /// The settings that this is about; with others it begins anew.
    settings: Option<Settings>,
    state: CanaryState,
    /// Percent that is steered, and since when.
    steered: Option<(u32, DateTime<Utc>)>,
    /// What was seen last.
    terms: Vec<MeasureTerms>,
    reason: String,
    stepped_back: Option<SteppedBack>,
    /// An operator resumed it in this run: what the last one left of it, whenever that comes, counts no more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_resumed: bool,
}

/// Why and since when predictions steer nothing of a canary any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SteppedBack {
    at: DateTime<Utc>,
    decision: Uuid,
    reason: String,
}

/// What is saved of a canary.
#[derive(Serialize, Deserialize)]
struct Saved {
    settings: Settings,
    /// None: it was resumed.
    stepped_back: Option<SteppedBack>,
}

/// What is recorded of a decision to step back.
#[derive(Deserialize)]
struct Inputs {
    law: CanaryLaw,
    previous: CanaryState,
    #[serde(flatten)]
    input: CanaryInput,
}

/// Makes a decision to step back again from its record; none when it is one to go on.
///
/// # Errors
/// Says why it cannot be made again.
pub(crate) fn explain_canary(row: &DecisionRow) -> Result<Option<CanaryDecision>, String> {
    if row.inputs.get("resumed").is_some() {
        return Ok(None);
    }
    let inputs = Inputs::deserialize(&row.inputs)
        .map_err(|error| format!("its record is of another version of Clairvoy: {error}"))?;
    Ok(Some(decide_canary(&inputs.input, &inputs.previous, &inputs.law)))
}

impl Core {
    /// A model as it is steered: one whose canary has stepped back is on the rung `advise`.
    pub(in crate::run) fn in_effect<'a>(&self, model: &'a Model) -> Cow<'a, Model> {
        if self.stepped_back(model).is_some() {
            Cow::Owned(Model { rung: Rung::Advise, ..model.clone() })
        } else {
            Cow::Borrowed(model)
        }
    }

    fn stepped_back(&self, model: &Model) -> Option<&SteppedBack> {
        let canary = self.canaries.get(&model.name).filter(|_| model.rung == Rung::Canary)?;
        canary.stepped_back.as_ref().filter(|_| canary.settings == Some(model.canary))
    }

    /// Forgets canaries that are none any more, or have other settings: then an operator wants it otherwise.
    pub(super) fn keep_canaries(&mut self, now: DateTime<Utc>) {
        let models = &self.config.models;
        let mut forgotten = Vec::new();
        self.canaries.retain(|name, canary| {
            let model = models.iter().find(|model| model.name == *name);
            let keep = model
                .is_some_and(|model| model.rung == Rung::Canary && canary.settings == Some(model.canary));
            if let (false, Some(settings), true) = (keep, canary.settings, canary.stepped_back.is_some()) {
                forgotten.push((name.clone(), settings));
            }
            keep
        });
        // When the same settings come again the canary does, too, over restarts as well.
        forgotten.into_iter().for_each(|(name, settings)| self.save_canary(&name, settings, None, now));
    }

    fn save_canary(
        &mut self,
        name: &str,
        settings: Settings,
        stepped_back: Option<SteppedBack>,
        now: DateTime<Utc>,
    ) {
        if let Ok(state) = serde_json::to_value(Saved { settings, stepped_back }) {
            let (kind, key) = (CANARY, name.to_owned());
            self.effects.push(Effect::Journal(Entry::ModelState { kind, key, at: now, state }));
        }
    }

    /// Looks whether the steered part of a canary does worse than the rest, after its reliance; true when it steps back and
    /// Envoys are to be told. `model` is as configured.
    pub(super) fn watch_canary(&mut self, model: &Model, now: DateTime<Utc>) -> bool {
        if model.rung != Rung::Canary || !model.steers() || self.stepped_back(model).is_some() {
            return false;
        }
        let percent = self.reliance.get(&model.name).map_or(0, |reliance| reliance.percent);
        let law = CanaryLaw::default();
        let canary = self.canaries.entry(model.name.clone()).or_default();
        if canary.settings != Some(model.canary) {
            *canary = Canary { settings: Some(model.canary), ..Canary::default() };
        }
        // With a clock that was set back it begins anew.
        if canary.steered.is_none_or(|(before, since)| before != percent || since > now) {
            canary.steered = Some((percent, now));
        }
        let Some((steered_percent, steered_since)) = canary.steered.filter(|(percent, _)| *percent > 0)
        else {
            return false;
        };
        let Some((from, until)) = canary.state.next_block(steered_since, &law, now) else { return false };
        let fleet = &self.fleet;
        let outcomes = |from| fleet.outcomes(&model.name, from, until);
        let window = |seconds: i64| Window {
            seconds,
            // Before it was steered as it is now there is nothing to compare.
            parts: outcomes((until - TimeDelta::seconds(seconds)).max(law.settled(steered_since))),
        };
        let input = CanaryInput {
            steered_percent,
            steered_since,
            block: Block { from, until, parts: outcomes(from) },
            windows: CANARY_WINDOWS.map(window).to_vec(),
        };
        let previous = canary.state.clone();
        let decision = decide_canary(&input, &previous, &law);
        canary.state = decision.state.clone();
        canary.terms = decision.terms.clone();
        canary.reason = decision.reason.clone();
        let Some(measure) = decision.step_back else { return false };
        let mut inputs =
            json!({ "law": law, "previous": previous, "measure": measure, "terms": decision.terms });
        if let (Some(all), Ok(serde_json::Value::Object(more))) =
            (inputs.as_object_mut(), serde_json::to_value(&input))
        {
            all.extend(more);
        }
        let share = 100.0 * model.canary.share;
        self.step(model, (share, 0.0), &decision.reason, inputs, now);
        true
    }

    /// Records that a canary steps back or is resumed, saves it, and tells operators.
    fn step(
        &mut self,
        model: &Model,
        (from, to): (f64, f64),
        reason: &str,
        inputs: serde_json::Value,
        now: DateTime<Utc>,
    ) {
        let is_back = to == 0.0;
        let name = &model.name;
        let summary = if is_back {
            format!("predictions steer nothing any more: {reason}")
        } else {
            format!("predictions steer the canary again: {reason}")
        };
        let change =
            Change { target: "canary".to_owned(), from: Some(from), to: Some(to), reason: reason.to_owned() };
        let steered = Steered { kind: "canary", summary, changes: vec![change], inputs };
        let decision = self.record(name, None, steered, now);
        let stepped_back = is_back.then(|| SteppedBack { at: now, decision, reason: reason.to_owned() });
        self.save_canary(name, model.canary, stepped_back.clone(), now);
        let is_resumed = !is_back;
        self.canaries.insert(
            name.clone(),
            Canary { settings: Some(model.canary), stepped_back, is_resumed, ..Canary::default() },
        );
        if is_back {
            let message = format!("the canary of model {name} steps back to `advise`: {reason}");
            self.note("warning", message);
        } else {
            self.note("info", format!("the canary of model {name} steers again: {reason}"));
        }
    }

    /// Has predictions steer the canary of a model again.
    ///
    /// # Errors
    /// There is no such model, or nothing to resume.
    pub(super) fn resume_canary(&mut self, name: &str, now: DateTime<Utc>) -> Result<(), Refusal> {
        let model = self.config.models.iter().find(|model| model.name == name).cloned();
        let model = model.ok_or_else(|| Refusal::NoSuchModel(name.to_owned()))?;
        let Some(back) = self.stepped_back(&model) else { return self.resume_unknown(&model, now) };
        let inputs = json!({ "resumed": back.decision });
        let share = 100.0 * model.canary.share;
        self.step(&model, (0.0, share), "an operator resumed it", inputs, now);
        self.decide(now);
        // What is decided is to be there before anything goes by it.
        if self.has_begun {
            self.effects.push(Effect::Publish);
        }
        Ok(())
    }

    /// Takes the wish to go on for a canary of which it is not known yet whether it had stepped back in the last run.
    fn resume_unknown(&mut self, model: &Model, now: DateTime<Utc>) -> Result<(), Refusal> {
        let name = &model.name;
        if model.rung != Rung::Canary || self.ordered.is_none() {
            return Err(Refusal::NotSteppedBack(name.clone()));
        }
        let canary = self.canaries.entry(name.clone()).or_default();
        if canary.settings != Some(model.canary) {
            *canary = Canary { settings: Some(model.canary), ..Canary::default() };
        }
        canary.is_resumed = true;
        self.save_canary(name, model.canary, None, now);
        self.note(
            "info",
            format!("the canary of model {name} steers, though it may have stepped back before"),
        );
        Ok(())
    }

    /// Takes up that a canary had stepped back in the last run.
    pub(super) fn remember_canary(&mut self, name: &str, state: serde_json::Value, now: DateTime<Utc>) {
        let Ok(Saved { settings, stepped_back: Some(stepped_back) }) = serde_json::from_value(state) else {
            return;
        };
        let model = self.config.models.iter().find(|model| model.name == name);
        if !model.is_some_and(|model| model.rung == Rung::Canary && model.canary == settings) {
            self.save_canary(name, settings, None, now);
            return;
        }
        // What was found or ordered meanwhile, without the database, is newer; but nothing else steers what had stepped back.
        let canary = self.canaries.entry(name.to_owned()).or_default();
        if canary.stepped_back.is_none() && !canary.is_resumed {
            let stepped_back = Some(stepped_back);
            *canary = Canary { settings: Some(settings), stepped_back, ..Canary::default() };
        }
    }

    /// By model, when requests began that may be compared: since then the same share is steered.
    pub(in crate::run) fn compared_since(&self) -> BTreeMap<String, DateTime<Utc>> {
        let law = CanaryLaw::default();
        let compared = self.canaries.iter().filter(|(_, canary)| canary.stepped_back.is_none());
        let since = compared.filter_map(|(name, canary)| {
            let (_, since) = canary.steered.filter(|(percent, _)| *percent > 0)?;
            Some((name.clone(), law.settled(since)))
        });
        since.collect()
    }

    /// How many of the connected Envoys are chosen of a canary of proxies, and how many there are; none of others.
    fn chosen_proxies(&self, model: &Model) -> Option<(usize, usize)> {
        let below = model.steered_proxies()?;
        let chosen = self.connected.iter().filter(|node| proxy_number(node) < below).count();
        Some((chosen, self.connected.len()))
    }

    /// Part of a model's requests that predictions steer, 0 to 1: of a canary of proxies, the part of the Envoys that are chosen.
    pub(in crate::run) fn relied_part(&self, model: &Model) -> f64 {
        let percent = self.reliance.get(&model.name).map_or(0, |reliance| reliance.percent);
        let chosen =
            self.chosen_proxies(model).map_or(1.0, |(chosen, all)| chosen as f64 / all.max(1) as f64);
        chosen * f64::from(percent) / 100.0
    }
}

#[cfg(test)]
mod tests;
