//! The Clairvoy control plane.

pub mod api;
pub mod cli;
pub mod compile;
pub mod config;
pub mod decide;
pub mod fleet;
pub mod learn;
pub mod run;
pub mod signal;
pub mod store;
pub mod telemetry;
