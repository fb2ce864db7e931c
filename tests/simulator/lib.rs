//! What the end-to-end tests, the demo and the benchmarks run on: simulated model servers, recorded demand and a
//! player for it, a stand-in for an autoscaler, and the demo itself.

mod autoscaler;
mod demo;
mod engine;
mod history;
mod player;
mod rig;
mod server;

pub use autoscaler::{
    Autoscaler, AutoscalerConfig, Launcher, MAX_AGE_SECONDS, Progress, Refusal, Registrar, ReplicaPlan,
    Secret, SignedHeaders, WebhookCounts, verify,
};
pub use demo::{Child, DemoOptions, run as run_demo};

pub use engine::{
    Completion, Effects, Engine, EngineConfig, EngineState, Iteration, NewRequest, Output, Profile,
    RequestId, SpeedClass, SubmitError, TokenGap, Totals, UnknownClass,
};
pub use history::{
    DemandSeries, Replay, RequestSize, SEASON_WINDOWS, SeriesError, heavy_request_sizes, request_sizes,
};
pub use player::{
    Demand, FailureCause, Failures, Histogram, ModelLoad, ModelStatistics, Outcome, Player, PlayerConfig,
    Sender, loopback_client,
};
pub use rig::{
    Action, Arrival, Basis, Cell, CellResult, Event, Goal, Gpu, Handed, Health, Interval, InvalidCell,
    LATENESS_BOUND_SECONDS, Lengths, Machine, Pair, Plan, RIG_VERSION, Sample, Scenario, SecondShare, Served,
    SizeSet, Slo, SlowShare, Stretch, Summary, Told, Verdict, capacity_rps, capacity_shares, geometric_ratio,
    idle_seconds, judge, machines, machines_alike, per_second, profile, quantile, quantile_interval,
    schedule,
};
pub use server::{Faults, InvalidFaults, ServerConfig, ServerState, SimulatedServer, WakeUps};
