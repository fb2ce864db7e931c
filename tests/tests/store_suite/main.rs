//! The store on a real Postgres: the embedded server's life, telemetry through failures, and every query.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod helper;
mod proxy;
mod queries;
mod retention;
mod server;
mod support;
mod telemetry;
