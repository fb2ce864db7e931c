use std::net::SocketAddr;

use chrono::TimeDelta;
use tokio::sync::oneshot;

use crate::fleet::{FleetError, Registration};

/// What the API asks the controller to do.
#[derive(Debug)]
pub enum Command {
    /// Add a backend to a pool, or take one back that was draining.
    Register(Target),
    /// Add a backend to a pool for a time, or renew that time.
    Lease(LeaseRequest),
    /// Stop new requests to a backend.
    Drain(Target),
    /// Stop new requests to a backend and remove it after the drain time.
    Remove(Target),
    /// Have predictions steer the canary of a model again.
    ResumeCanary(Resumption),
    /// Demand history was imported: learn it. By model: number of the first step, requests/s by step.
    Learn(Vec<(String, i64, Vec<Option<f64>>)>),
}

/// A backend of a pool, and where the answer goes.
#[derive(Debug)]
pub struct Target {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub address: SocketAddr,
    /// Told when the controller has done it.
    pub reply: oneshot::Sender<Result<(), Refusal>>,
}

/// A backend of a pool that is registered for a time, and where the answer goes.
#[derive(Debug)]
pub struct LeaseRequest {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub address: SocketAddr,
    /// How long it is registered from now on.
    pub length: TimeDelta,
    /// Told when the controller has done it.
    pub reply: oneshot::Sender<Result<Registration, Refusal>>,
}

/// A model whose canary is to go on, and where the answer goes.
#[derive(Debug)]
pub struct Resumption {
    /// The model.
    pub model: String,
    /// Told when the controller has done it.
    pub reply: oneshot::Sender<Result<(), Refusal>>,
}

/// Why a command was refused.
pub type Refusal = FleetError;
