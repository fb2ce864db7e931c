use std::collections::VecDeque;

use serde::Deserialize;

use crate::Error;

use super::blend::Blend;
use super::regression::{Fitted, Outcome};
use super::service::Service;
use super::spread::Spread;
use super::{Newest, VERSION, WaitConfig, WaitModel};

/// A state as it was read, before it is known to be usable.
#[derive(Deserialize)]
pub(super) struct Saved {
    version: u32,
    config: WaitConfig,
    outcomes: VecDeque<Outcome>,
    outcomes_since_fit: u64,
    in_tokens: Service,
    in_requests: Service,
    blend: Blend,
    spread: Spread,
    newest: Option<Newest>,
    fit: Option<Fitted>,
}

impl TryFrom<Saved> for WaitModel {
    type Error = Error;

    fn try_from(saved: Saved) -> Result<Self, Error> {
        let Saved { version, config, outcomes, outcomes_since_fit, in_tokens, in_requests, blend, .. } =
            saved;
        let Saved { spread, newest, fit, .. } = saved;
        if version != VERSION {
            return Err(Error::Version { found: version, supported: VERSION });
        }
        if config.clamped() != config || outcomes.len() > config.outcomes {
            return Err(Error::Inconsistent("outcomes differ from the configuration"));
        }
        if fit.as_ref().is_some_and(|fit| !fit.is_sound()) {
            return Err(Error::Inconsistent("a regression that cannot be computed"));
        }
        Ok(Self {
            version,
            config,
            outcomes,
            outcomes_since_fit,
            in_tokens,
            in_requests,
            blend,
            spread,
            newest,
            fit,
        })
    }
}
