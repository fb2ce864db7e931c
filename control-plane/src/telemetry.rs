//! Telemetry: what model servers say about themselves, as one canonical [`Sample`] per backend and second.

mod sample;

pub use sample::Sample;
