//! The store on a real Postgres: the embedded server's life, telemetry through failures, and every query.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod helper;
mod loss;
mod migration;
mod proxy;
mod queries;
mod retention;
mod rollups;
mod sender;
mod server;
mod soak;
mod support;
mod telemetry;
