//! What `cargo xtask bench balance` decides without a clock: the fleet and its capacity, the cells and their schedules,
//! the statistics of what was measured, and the goals.

mod capacity;
mod cell;
mod fleet;
mod goals;
mod gpu;
mod handed;
mod outcome;
mod plan;
mod schedule;
mod statistics;
mod summary;

pub use self::capacity::{Basis, Slo, idle_seconds};
pub use self::cell::{Cell, InvalidCell, Scenario, SizeSet};
pub use self::fleet::{Machine, capacity_rps, capacity_shares, machines, machines_alike, profile};
pub use self::goals::{Goal, Verdict, judge};
pub use self::gpu::Gpu;
pub use self::handed::Handed;
pub use self::outcome::{CellResult, Health, LATENESS_BOUND_SECONDS, RIG_VERSION, Served, Told};
pub use self::plan::{Action, Event, Lengths, Plan, Stretch};
pub use self::schedule::{Arrival, schedule};
pub use self::statistics::{Interval, Pair, Sample, geometric_ratio, quantile, quantile_interval};
pub use self::summary::{SecondShare, SlowShare, Summary, per_second};
