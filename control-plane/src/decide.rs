//! Decide: from what is known of the fleet to shares, groups and replica plans.
//!
//! Everything here is pure: values in, values out, no clock and no I/O, so that a decision can be replayed and explained.
//!
//! - [`weights`](decide_weights): capacity shares, corrected by predicted waits.
//! - [`profile`](Learner): what an iteration of a backend's engine costs, and what fits into it; learned.
//! - [`Speed`]: how much slower than usual a backend runs at the moment.
//! - [`Capacity`]: requests/s that a backend serves, learned from what it served while it was busy.
//! - [`replicas`](plan_replicas): how many replicas each pool needs, now and by the forecast.

mod capacity;
mod profile;
mod replicas;
mod speed;
mod weights;

pub use capacity::{Capacity, fill_unknown};
pub use profile::{
    Certainty, ClassProfile, EngineSize, Interval, Iteration, Learner, LoggedAnswers, LoggedInterval, Mix,
    Profile,
};
pub use replicas::{PoolInput, PoolPlan, plan_replicas};
pub use speed::Speed;
pub use weights::{BackendInput, BackendShare, GroupShare, Law, WeightDecision, WeightState, decide_weights};
