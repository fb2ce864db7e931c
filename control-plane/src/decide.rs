//! Decide: from what is known of the fleet to shares, groups and replica plans.
//!
//! Everything here is pure: values in, values out, no clock and no I/O, so that a decision can be replayed and explained.
//!
//! - [`law`](decide_weights): shares by capacity and a common level of load; [`capacity_shares`] by capacity alone.
//! - [`profile`](Learner): what an iteration of a backend's engine costs, and what fits into it; learned.
//! - [`StaticCapacities`]: the capacity shares that Envoys fall back to.
//! - [`Judged`]: whether a backend is sick or warms up, by what is found of it.
//! - [`Speed`]: how much slower than usual a backend runs at the moment.
//! - [`canary`](decide_canary): whether the requests that predictions steer do worse than the others.
//! - [`Capacity`]: requests/s that a backend serves, learned from what it served while it was busy.
//! - [`policy_shares`]: weights of single backends, where Envoy balances by itself.
//! - [`drain_outlook`]: when the requests that run at a backend will have ended.
//! - [`shed`](decide_shed): which part of the requests is refused in overload.
//! - [`zones`](decide_zones): whose requests make up the share of a group: each zone of Envoys prefers what is near.
//! - [`relief`](decide_relief): which part of the requests spare backends keep while the others come back.
//! - [`replicas`](plan_replicas): how many replicas each pool needs, now and by the forecast.

mod canary;
mod capacity;
mod curve;
mod drain;
mod law;
mod policy_shares;
mod profile;
mod relief;
mod replicas;
mod shares;
mod shed;
mod speed;
mod static_shares;
mod verdict;
mod zones;

pub use canary::{
    Block, CANARY_WINDOWS, CanaryDecision, CanaryInput, CanaryLaw, CanaryState, Measure, MeasureTerms,
    Outcomes, PartOutcomes, Window, decide_canary,
};
pub use capacity::{Capacity, fill_unknown};
pub use drain::{DrainOutlook, drain_outlook};
pub use law::{
    ACTIVE_REQUEST_BIAS, Aside, BackendInput, BackendShare, Clamp, ENDPOINT_WEIGHTS, Form, GroupShare, Law,
    ModelInput, Terms, Verdict, WeightDecision, WeightState, capacity_shares, decide_weights, moved,
};
pub use policy_shares::{Weighed, Weighing, policy_shares};
pub use profile::{
    Certainty, ClassProfile, EngineSize, Interval, Iteration, Learner, LoggedAnswers, LoggedInterval, Mix,
    Profile, Stretch,
};
pub use relief::{Relief, ReliefInput, decide_relief};
pub use replicas::{PoolInput, PoolPlan, plan_replicas};
pub use shares::whole_weights;
pub use shed::{
    Ahead, InForce, Refused, ShedCause, ShedDecision, ShedInput, ShedLaw, ShedState, ShedTerms, decide_shed,
};
pub use speed::Speed;
pub use static_shares::{PoolCapacity, StaticCapacities};
pub use verdict::{Judged, Seen, Signs};
pub use zones::{
    GroupTotal, LatencyRule, MOST_ZONES, NodeZone, NotAZone, OTHER_REGION_MS, SAME_REGION_MS, SAME_ZONE_MS,
    Zone, ZoneFlow, ZoneTerms, ZonesDecision, ZonesInput, ZonesState, decide_zones, rules_in_play,
};
