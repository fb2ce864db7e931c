use serde::{Deserialize, Serialize};

use crate::quantiles::Quantiles;

use super::blend::{BAND_COUNT, EXPERTS, Opinions};
use super::features::Features;
use super::service::Work;
use super::spread::Scale;

/// Who has a say in a [`WaitForecast`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitExpert {
    /// The last observed TTFT.
    LastObserved,
    /// What stands before the request over the rate of service of the last hundred outcomes or so.
    RecentService,
    /// The same over the rate of service of the last thousand or two.
    Service,
    /// The same counted in requests where the others count prompt tokens: right where places in the batch are short, not
    /// the time to read prompts.
    ServiceInRequests,
    /// [`Service`](Self::Service), off by as much as it was for the request that was observed last.
    Corrected,
    /// The regression on what the others leave.
    Regression,
}

impl WaitExpert {
    /// Every expert.
    pub const ALL: [Self; 6] = [
        Self::LastObserved,
        Self::RecentService,
        Self::Service,
        Self::ServiceInRequests,
        Self::Corrected,
        Self::Regression,
    ];

    /// Returns the expert's name, as it is serialised.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LastObserved => "last_observed",
            Self::RecentService => "recent_service",
            Self::Service => "service",
            Self::ServiceInRequests => "service_in_requests",
            Self::Corrected => "corrected",
            Self::Regression => "regression",
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// The forecast TTFT of a request that arrives now, in seconds; all values lie between 0 and 600 and are positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitForecast {
    /// Median and bounds.
    pub quantiles: Quantiles,
    /// The expert with the largest say; `None` when no TTFT of this backend is known and the quantiles are a guess that
    /// nothing should be decided on.
    pub leader: Option<WaitExpert>,
}

impl WaitForecast {
    /// Returns the median, `None` when nothing is known.
    pub fn known_seconds(&self) -> Option<f64> {
        self.leader.map(|_| self.quantiles.median())
    }

    /// Returns the bound that nine outcomes in ten are to stay below, `None` when nothing is known.
    pub fn known_upper_seconds(&self) -> Option<f64> {
        self.leader.map(|_| self.quantiles.q90())
    }

    /// Returns the name of the leader, `none` when nothing is known.
    pub fn source_name(&self) -> &'static str {
        self.leader.map_or("none", WaitExpert::name)
    }
}

/// How one expert stands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitStanding {
    /// Which.
    pub expert: WaitExpert,
    /// Its share in the forecast asked about, 0 to 1.
    pub share: f64,
    /// What it says, in seconds; `None` when it says nothing.
    pub seconds: Option<f64>,
    /// Its mean absolute error over the last hundred outcomes or so, in seconds.
    pub recent_error_seconds: Option<f64>,
}

/// A question that was asked, with its answer: handed back with the outcome, so that what is scored and learned from is
/// what was known and said when the request arrived. About 400 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitTicket {
    pub(super) forecast: WaitForecast,
    pub(super) asked_at: f64,
    pub(super) age_seconds: f64,
    pub(super) beat_seconds: f64,
    pub(super) work: Work,
    /// The same in requests.
    pub(super) in_requests: Work,
    pub(super) opinions: Opinions,
    pub(super) shares: [f64; EXPERTS],
    pub(super) base: f64,
    pub(super) band: usize,
    pub(super) scale: Scale,
    pub(super) features: Features,
}

impl WaitTicket {
    /// Returns what was answered.
    pub fn forecast(&self) -> WaitForecast {
        self.forecast
    }

    /// Whether it can be learned from: one that was read may be anything.
    pub(super) fn is_sound(&self) -> bool {
        let sizes =
            [self.base, self.work.total(), self.in_requests.total(), self.age_seconds, self.beat_seconds];
        let opinions = self.opinions.iter().flatten();
        self.band < BAND_COUNT
            && self.asked_at.is_finite()
            && sizes.iter().all(|value| value.is_finite() && *value >= 0.0)
            && opinions.chain([&self.base]).all(|seconds| seconds.is_finite() && *seconds > 0.0)
            && self.scale.is_sound()
    }

    /// Returns how far an outcome is off the median, in units of the error that was expected of it, as logarithms: about
    /// one in size on the whole, positive when the first token came late.
    pub fn residual(&self, ttft_seconds: f64) -> f64 {
        self.scale.residual(self.forecast.quantiles.median(), ttft_seconds)
    }

    /// Returns the time of the question, in seconds on the asker's clock.
    pub fn asked_at_seconds(&self) -> f64 {
        self.asked_at
    }
}
