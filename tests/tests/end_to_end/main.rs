//! The whole: `clairvoy` as a process, a real Envoy, a real Postgres, and simulated model servers.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod access;
mod affinity;
mod anomalies;
mod api;
mod canary;
mod commands;
mod configuration;
mod database;
mod discovery;
mod drain;
mod existing_envoys;
mod explain;
mod failsafe;
mod gateways;
mod health;
mod history;
mod leases;
mod membership;
mod orca;
mod overload;
mod page;
mod policies;
mod push;
mod push_loss;
mod refusal;
mod replay;
mod restart;
mod routing;
mod soak;
mod support;
mod telemetry;
mod tls;
mod tokens;
mod webhooks;
mod zones;
