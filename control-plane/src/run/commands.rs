use std::net::SocketAddr;

use tokio::sync::oneshot;

use crate::fleet::FleetError;

/// What the API asks the controller to do.
#[derive(Debug)]
pub enum Command {
    /// Add a backend to a pool, or take one back that was draining.
    Register(Target),
    /// Stop new requests to a backend.
    Drain(Target),
    /// Stop new requests to a backend and remove it after the drain time.
    Remove(Target),
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

/// Why a command was refused.
pub type Refusal = FleetError;
