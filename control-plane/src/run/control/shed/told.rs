use crate::compile::LanesIntent;
use crate::config::Model;
use crate::view::ShedView;

use super::Core;

/// In parts of this many requests Envoys are told what to refuse.
pub(super) const MILLION: f64 = 1e6;

impl Core {
    /// What Envoys are to do about the lanes of a model.
    pub(in crate::run::control) fn lanes_intent(&self, model: &Model, steers: bool) -> LanesIntent {
        let (batch, interactive) = match self.sheds.get(&model.name) {
            Some(shed) if steers && model.shedding.enabled => shed.published,
            _ => (0.0, 0.0),
        };
        let share = model.enforced_share();
        let millionths = |part: f64| (MILLION * part.clamp(0.0, 1.0)).round() as u32;
        LanesIntent {
            lane: model.lane,
            max_requests: model.max_requests,
            refuses: model.shedding.enabled,
            retry_after_seconds: model.shedding.retry_after.0.as_secs().max(1),
            batch_refused: millionths(batch * share),
            predictive_refused: millionths(if model.steers() { interactive } else { 0.0 }),
        }
    }

    /// What is shown of the lanes of a model.
    pub(in crate::run) fn shed_view(&self, model: &Model) -> ShedView {
        let in_force = self.in_force(model, self.relied_part(model));
        let shed = self.sheds.get(&model.name);
        let advised = shed.map_or((0.0, 0.0), |shed| shed.published);
        let total = self.fleet.lane_totals(&model.name);
        ShedView {
            batch_ratio: in_force.0,
            interactive_ratio: in_force.1,
            advised_batch_ratio: advised.0,
            advised_interactive_ratio: advised.1,
            batch_refused: total.batch.refused,
            interactive_refused: total.interactive.refused,
            since: shed.and_then(|shed| shed.since),
            reason: shed.filter(|shed| shed.sheds()).map(|shed| shed.reason.clone()),
        }
    }
}
