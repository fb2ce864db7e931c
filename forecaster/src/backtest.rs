//! Backtests: what would have been forecast, with nothing known but what lay before, and how good it would have been.

mod demand;
mod replicas;
mod score;

pub use demand::{Backtest, Issue, Series, backtest};
pub use score::{Policy, Reference, ReplicaScore, Score, score, score_reference, score_replicas};
