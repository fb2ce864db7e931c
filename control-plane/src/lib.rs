//! The Clairvoy control plane, as a library under the program `clairvoy`.
//!
//! ```text
//!        load reports, access logs (envoy) ◄────────────────┐
//!                       ▼                                     │
//! scrape ─► Sample ─► fleet ─► decide ─► compile ─► xDS ─► Envoys
//!             │         ▲         └─► signal ─► webhooks
//!             ▼         │ predictions
//!           store ──► learn (forecaster)
//! ```
//!
//! Data goes one way. `decide` and `compile` are pure; `run` is the shell around them.

pub mod api;
pub mod cli;
pub mod compile;
pub mod config;
pub mod decide;
pub mod discovery;
pub mod envoy;
pub mod fleet;
#[cfg(test)]
mod fuzz;
pub mod learn;
pub mod metrics;
mod packed;
pub mod push;
pub mod replay;
pub mod run;
pub mod signal;
pub mod store;
pub mod telemetry;
pub mod view;
