//! Replay: recorded inputs, played through the same code to the same decisions.
//!
//! [`export`] reads telemetry, and in which order the controller took it, out of the database into one file ([`Writer`],
//! [`Reader`]). [`Replay`] feeds the file's rows to the controller's core and to the learner, on the clock of the file:
//! no I/O, no threads, no clock of its own. [`Comparison`] tells where two runs part, and why.

mod bounds;
mod compare;
mod engine;
mod export;
mod file;
mod pages;
mod row;
mod samples;
#[cfg(test)]
mod tests;

pub use compare::Comparison;
pub use engine::{Replay, ReplayError, Tally};
pub use export::{Exported, export};
pub use file::{FileError, Reader, Writer};
pub use row::{Row, Scope};
