use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{DemandConfig, Grid};

use super::Span;

/// How demand is forecast.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Forecast {
    /// Length of one step of the demand series (default 1 minute).
    pub step: Span,
    /// Length of the season after which demand tends to repeat (default 1 day); a multiple of `step`.
    pub season: Span,
    /// How far ahead to forecast; multiples of `step` (default 1, 5, 10, 30 and 60 minutes, 6 and 24 hours).
    #[garde(length(min = 1, max = 64))]
    pub horizons: Vec<Span>,
    /// How often the regressions are fitted anew (default 1 hour).
    pub refit_every: Span,
}

impl Forecast {
    /// The settings in steps, as the forecaster takes them; horizons sorted.
    pub fn in_steps(&self) -> DemandConfig {
        let step_seconds = self.step.0.as_secs().max(1);
        let steps = |span: &Span| u32::try_from(span.0.as_secs() / step_seconds).unwrap_or(u32::MAX);
        let mut horizons: Vec<u32> = self.horizons.iter().map(steps).collect();
        horizons.sort_unstable();
        horizons.dedup();
        let step_seconds = u32::try_from(step_seconds).unwrap_or(u32::MAX);
        DemandConfig { grid: Grid { step_seconds, season_steps: steps(&self.season) }, horizons }
    }
}

impl Default for Forecast {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        Self {
            step: Span::seconds(MINUTE),
            season: Span::seconds(24 * 60 * MINUTE),
            horizons: [1, 5, 10, 30, 60, 6 * 60, 24 * 60].map(|m| Span::seconds(m * MINUTE)).to_vec(),
            refit_every: Span::seconds(60 * MINUTE),
        }
    }
}
