//! Telemetry that is pushed: OTLP metrics over gRPC and HTTP, Prometheus remote write, and plain JSON.
//!
//! ```text
//! connection ─► body (time, length, memory) ─► decoder ─► collector ─► queue ─► assembler ─► ScrapeOutcome
//!   listen,       body                          otlp,       whose is     full:     readings per
//!   serve                                       remote_     it, may      come      backend, as
//!                                               write,      it be        back      a scrape's
//!                                               plain       believed     later
//! ```
//!
//! A decoder reads the message in place and asks by hash for each name whether an engine has it; what nobody knows is
//! counted and skipped. What a request may cost is bounded by its bytes, whatever they say. All that follows the queue is
//! pure but for the task around it, and ends in the samples that scrapes end in.

mod access;
mod answer;
mod assemble;
mod batch;
mod body;
mod collector;
mod directory;
mod doors;
mod exponential;
mod intake;
mod listen;
mod metrics;
mod names;
mod orca;
mod otlp;
mod plain;
mod queue;
mod refusal;
mod remote_write;
mod serve;
mod shares;
mod wire;

pub use access::PushSenders;
pub use directory::{Directory, Member};
pub use intake::Intake;
pub use metrics::{Protocol, PushMetrics};
pub use queue::Assembly;
pub use serve::Surface;

use plain::CANONICAL;

#[cfg(test)]
mod tests;
