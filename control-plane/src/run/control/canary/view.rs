use crate::config::{Model, Rung};
use crate::view::{CanaryView, SteppedBackView};

use super::Core;

impl Core {
    /// Why there is only one part of a canary of proxies, and whether it is the one that is not steered; none while there are
    /// two, or no Envoy.
    pub(in crate::run) fn lone_part(&self, model: &Model) -> Option<(bool, String)> {
        match self.chosen_proxies(model)? {
            (_, 0) => None,
            (0, 1) => Some((true, "the one Envoy that is connected is not among the chosen".to_owned())),
            (0, all) => {
                Some((true, format!("none of the {all} Envoys that are connected is among the chosen")))
            }
            (chosen, all) if chosen == all => Some((
                false,
                format!("of {all} connected Envoys all are chosen: there is nothing to compare with"),
            )),
            _ => None,
        }
    }

    /// What is shown of the canary of a model; none on other rungs.
    pub(in crate::run) fn canary_view(&self, model: &Model) -> Option<CanaryView> {
        if model.rung != Rung::Canary {
            return None;
        }
        let canary = self.canaries.get(&model.name).cloned().unwrap_or_default();
        let stepped_back = self.stepped_back(model).map(|back| SteppedBackView {
            at: back.at,
            decision: back.decision.to_string(),
            reason: back.reason.clone(),
        });
        Some(CanaryView {
            by: model.canary.by,
            share: model.canary.share,
            blocks: canary.state.blocks,
            terms: canary.terms.clone(),
            reason: self
                .lone_part(model)
                .map(|(_, reason)| reason)
                .or_else(|| Some(canary.reason).filter(|reason| !reason.is_empty())),
            stepped_back,
        })
    }
}
