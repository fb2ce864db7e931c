//! Run: the shell around the pure parts. One task, the controller, owns the fleet and decides each second; scraping,
//! storing, learning, serving and signalling go on beside it, and none of them is waited for.

mod commands;
mod control;
mod controller;
mod database;
mod decision_id;
mod deliveries;
mod envoys;
mod files;
mod journal;
mod listen;
mod page;
mod parts;
mod plan;
mod recent;
mod recorder;
mod rehearsal;
mod reload;
mod secrets;
mod serve;
mod serve_api;
mod show;
mod steer;
mod tls;
mod turns;

pub use commands::{Command, LeaseRequest, Refusal, Resumption, Target};
pub(crate) use control::{
    Checkpoint, Core, Effect, Input, Order, Pending, decisive, explain_canary, explain_shed,
};
pub(crate) use database::demand_history;
pub(crate) use page::{Mark, Page};
pub use rehearsal::{Rehearsal, RehearsedGroup};
pub use secrets::check_secrets;
pub use serve::{Overrides, database_settings, serve};
pub use show::Frame;
pub(crate) use steer::{
    Explained, ExplainedZone, Explanation, Part, Recorded, explain, explain_spare, explain_zone,
};
pub(crate) use turns::{ByCapacity, by_capacity};
