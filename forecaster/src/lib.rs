//! Placeholder.

mod demand;
mod error;
mod forgetting;
mod linear;
mod quantiles;

pub use demand::*;
pub use error::Error;
pub use quantiles::{QUANTILES, Quantiles};
