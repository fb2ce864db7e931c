//! Backtests: what would have been forecast, with nothing known but what lay before.

mod demand;

pub use demand::{Backtest, Issue, Series, backtest};
