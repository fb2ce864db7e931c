use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ModelBalance, Span};

/// A model that clients ask for by name.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
pub struct Model {
    /// The name in the `model` field of requests.
    #[garde(length(min = 1, max = 200), pattern("^[^! \\t\\r\\n][^ \\t\\r\\n]*$"))]
    pub name: String,
    /// What users are promised.
    #[serde(default)]
    #[garde(dive)]
    pub slo: Slo,
    /// The pools that serve it, by name. The order is the order in which replicas are added.
    #[garde(length(min = 1))]
    pub pools: Vec<String>,
    /// Limits on the time that a request may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How its requests are spread over its backends.
    #[serde(default)]
    pub balance: ModelBalance,
}

/// Service level objectives of a model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Slo {
    /// Time to first token that 95 % of the requests should stay below (default 2 s).
    pub ttft_p95: Span,
    /// Load of a replica that is aimed at when replicas are planned, as a part of its capacity (default 0.8).
    #[garde(range(min = 0.1, max = 1.0))]
    pub target_utilisation: f64,
}

impl Default for Slo {
    fn default() -> Self {
        Self { ttft_p95: Span::seconds(2), target_utilisation: 0.8 }
    }
}

/// Time limits of a model's route. Answers stream for minutes and a long prefill is silent, so both are generous.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// Longest silence of both directions (default 5 minutes).
    pub idle: Span,
    /// Longest life of a stream (default 1 hour).
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { idle: Span::seconds(300), total: Span::seconds(3600) }
    }
}
