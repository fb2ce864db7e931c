//! The behaviour that proxies and proxyless gRPC clients rely on, over real connections. Tests are named after
//! the scenario that they show, and after the variant of the protocol where there is a test for each.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "../support/fixtures.rs"]
mod fixtures;
#[path = "../support/harness.rs"]
mod harness;

mod bursts;
mod delivery;
mod delta_ads;
mod flow;
mod fuzz_requests;
mod grpc_names;
mod health;
mod log;
mod metrics;
mod order;
mod safety;
mod serve_dir;
mod services;
mod sotw_ads;
mod sotw_returning;
mod status;
mod streams;
mod warming;
