//! What the end-to-end tests, the demo and the benchmarks run against: simulated model servers.

mod engine;
mod server;

pub use engine::{
    Completion, Effects, Engine, EngineConfig, EngineState, Iteration, NewRequest, Output, Profile,
    RequestId, SpeedClass, SubmitError, TokenGap, Totals, UnknownClass,
};
pub use server::{Faults, InvalidFaults, ServerConfig, ServerState, SimulatedServer};
