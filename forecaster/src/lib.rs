//! Placeholder.

mod demand;
mod error;
mod forgetting;
mod linear;
mod quantiles;
mod wait;

pub use demand::*;
pub use error::Error;
pub use quantiles::{QUANTILES, Quantiles};
pub use wait::{WaitConfig, WaitModel, WaitPrediction, WaitSource, WaitState};
