//! Decide: from what is known of the fleet to shares, groups and replica plans.
//!
//! Everything here is pure: values in, values out, no clock and no I/O, so that a decision can be replayed and explained.
//!
//! - [`weights`](decide_weights): capacity shares, corrected by predicted waits.
//! - [`Speed`]: how much slower than usual a backend runs at the moment.
//! - [`Capacity`]: requests/s that a backend serves, learned from what it served while it was busy.
//! - [`policy_shares`]: weights of single backends, where Envoy balances by itself.
//! - [`drain_outlook`]: when the requests that run at a backend will have ended.
//! - [`replicas`](plan_replicas): how many replicas each pool needs, now and by the forecast.

mod capacity;
mod drain;
mod policy_shares;
mod replicas;
mod speed;
mod weights;

pub use capacity::{Capacity, fill_unknown};
pub use drain::{DrainOutlook, drain_outlook};
pub use policy_shares::{Weighed, Weighing, policy_shares};
pub use replicas::{PoolInput, PoolPlan, plan_replicas};
pub use speed::{Iterations, Speed};
pub use weights::{BackendInput, BackendShare, GroupShare, Law, WeightDecision, WeightState, decide_weights};
