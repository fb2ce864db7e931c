use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Canary, CanaryBy, HealthChecks, MaxRequests, ModelBalance, ModelLane, OutlierDetection, Policy, Shedding,
    Span,
};

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
    /// By which requests of their own Envoys see whether a backend is there. Left out: by none.
    #[serde(default)]
    pub health: Option<HealthChecks>,
    /// When Envoys put out a backend by the requests that failed there.
    #[serde(default)]
    pub outlier_detection: OutlierDetection,
    /// How its requests are spread over its backends.
    #[serde(default)]
    pub balance: ModelBalance,
    /// How far predictions steer its traffic (default `enforce`).
    #[serde(default)]
    pub rung: Rung,
    /// What predictions steer on the rung `canary`.
    #[serde(default)]
    #[garde(dive)]
    pub canary: Canary,
    /// Which of its requests can wait (default `by_request`).
    #[serde(default)]
    pub lane: ModelLane,
    /// Most requests that an Envoy has running in each lane.
    #[serde(default)]
    #[garde(dive)]
    pub max_requests: MaxRequests,
    /// What is refused when more comes than it can serve.
    #[serde(default)]
    #[garde(dive)]
    pub shedding: Shedding,
}

impl Model {
    /// Whether predictions steer any of its requests while they are fresh.
    pub fn steers(&self) -> bool {
        self.balance.policy == Policy::Predictive && matches!(self.rung, Rung::Canary | Rung::Enforce)
    }

    /// Whether Envoys are told the shares that are decided; else those by capacity.
    pub fn follows_decisions(&self) -> bool {
        self.steers() || !self.balance.policy.has_groups()
    }

    /// Part of its requests to which decisions to refuse apply, 0 to 1, whatever the policy.
    pub fn enforced_share(&self) -> f64 {
        match self.rung {
            Rung::Shadow | Rung::Advise => 0.0,
            Rung::Canary => self.canary.share,
            Rung::Enforce => 1.0,
        }
    }

    /// Percent of its requests that predictions are to steer while they are fresh; where [`Model::steered_proxies`] are, of
    /// the requests of these.
    pub fn predictive_percent(&self) -> u32 {
        if !self.steers() {
            return 0;
        }
        match (self.rung, self.canary.by) {
            (Rung::Shadow | Rung::Advise, _) => 0,
            (Rung::Canary, CanaryBy::Requests) => self.canary.percent(),
            (Rung::Canary, CanaryBy::Proxies) | (Rung::Enforce, _) => 100,
        }
    }

    /// The Envoys that predictions steer, where these are not all: those with a number (`proxy_number`) below this one.
    pub fn steered_proxies(&self) -> Option<u32> {
        let is_by_proxies = self.rung == Rung::Canary && self.canary.by == CanaryBy::Proxies;
        (is_by_proxies && self.balance.policy == Policy::Predictive).then(|| self.canary.percent())
    }

    /// Part of all its requests that predictions are to steer while they are fresh, 0 to 1.
    pub fn steered_part(&self) -> f64 {
        let of_proxies = f64::from(self.steered_proxies().unwrap_or(100)) / 100.0;
        of_proxies * f64::from(self.predictive_percent()) / 100.0
    }
}

/// How far predictions steer the traffic of a model. What they do not steer goes by capacity shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rung {
    /// Nothing: decisions are made and stored, and Envoys are told the same as without any.
    Shadow,
    /// Nothing: besides, the API and the metrics tell which shares would have been given.
    Advise,
    /// A share of the requests or of the proxies, `canary`, and nothing any more once these do worse than the others.
    Canary,
    /// All requests.
    #[default]
    Enforce,
}

impl Rung {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Advise => "advise",
            Self::Canary => "canary",
            Self::Enforce => "enforce",
        }
    }
}

/// Service level objectives of a model.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Slo {
    /// Time to first token that 95 % of the requests should stay below (default 2 s). How long Envoys wait for connections
    /// and health checks is made from it where that is left out.
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
    /// Longest wait for a connection to a backend. Left out: half of `slo.ttft_p95`, 250 ms to 1 s.
    pub connect: Option<Span>,
    /// Longest silence of both directions (default 5 minutes).
    pub idle: Span,
    /// Longest life of a stream (default 1 hour).
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: None, idle: Span::seconds(300), total: Span::seconds(3600) }
    }
}
