//! Forecasts of demand and of waiting time for services that answer from a queue, such as model servers.
//!
//! Everything here is a pure function of what it is given: no clock, no I/O, no randomness, no threads. The same
//! calls give the same numbers, to the last digit; a saved state goes on as if it had never been saved.
//!
//! - [`DemandModel`]: a series of rates on a fixed grid in, quantiles of the rates to come out. A regression
//!   ([linfa](https://docs.rs/linfa)) for each horizon competes with the last value and the seasonal naive, and is
//!   heard only while it beats both on the series at hand. Gaps, late starts, real zeros and bursts are all fine.
//! - [`WaitModel`]: what one backend shows in, the time to first token of its next request out, as quantiles. What is
//!   known of queues, what was last observed and a regression are weighed by how well they lately did; a router that
//!   knows every prompt and a control plane that sees a scrape now and then ask the same model.
//! - [`CapacityModel`]: the rate of requests at which one backend keeps a latency target, as far as was seen.
//! - [`AnomalyWatch`] and [`judge`]: what is wrong with one backend, by the residuals of its wait model and against its
//!   peers, in words.
//!
//! The models split the cheap from the dear: `observe` is for every step, `refit` for every season or every hundred
//! outcomes, on another thread if need be: clone the model, refit the clone, and swap them.
//!
//! # Example
//!
//! ```
//! use clairvoy_forecaster::{DemandConfig, DemandModel, Grid};
//!
//! // Ten-minute steps with a daily season; forecast 10 min, 30 min and 1 h ahead.
//! let grid = Grid { step_seconds: 600, season_steps: 144 };
//! let config = DemandConfig { grid, horizons: vec![1, 3, 6] };
//!
//! // Six days that follow the sun, one hour of them unknown.
//! let rate = |step: i64| 50.0 - 30.0 * (std::f64::consts::TAU * step as f64 / 144.0).cos();
//! let first_step = 1_700_000_000 / 600;
//! let mut history: Vec<Option<f64>> = (0..6 * 144).map(|i| Some(rate(first_step + i))).collect();
//! history[400..406].fill(None);
//!
//! let mut model = DemandModel::train(&config, first_step, &history)?;
//! let next = model.newest_step() + 1;
//! model.observe(next, Some(rate(next)));
//!
//! let forecast = model.forecast();
//! assert_eq!(forecast.origin_step, next);
//! for point in &forecast.points {
//!     let actual = rate(next + i64::from(point.horizon_steps));
//!     assert!((point.quantiles.median() - actual).abs() < 0.05 * actual);
//!     assert!(point.quantiles.q90() >= point.quantiles.median());
//! }
//! # Ok::<(), clairvoy_forecaster::Error>(())
//! ```
//!
//! Waits are asked for one request at a time. The ticket of a question comes back with its outcome, so that what is scored
//! is what was known and said when the request arrived:
//!
//! ```
//! use clairvoy_forecaster::{WaitConfig, WaitModel, WaitQuery, WaitState};
//!
//! // A backend that works off four requests a second; the queue comes and goes.
//! let mut model = WaitModel::new(WaitConfig::default());
//! let query = |second: f64| {
//!     let waiting = Some((8.0 + 8.0 * (second / 7.0).sin()).round());
//!     WaitQuery { state: WaitState { waiting, ..WaitState::default() }, now_seconds: second, ..WaitQuery::default() }
//! };
//! let outcome = |query: &WaitQuery| 0.25 + query.state.waiting.unwrap_or(0.0) / 4.0;
//! for second in 0..300 {
//!     let query = query(f64::from(second));
//!     let ticket = model.ask(&query);
//!     model.observe(&ticket, outcome(&query), 1.0, query.now_seconds + outcome(&query));
//!     if model.outcomes_since_fit() >= 100 {
//!         model.refit();
//!     }
//! }
//!
//! let next = query(300.0);
//! let forecast = model.predict(&next);
//! assert!((forecast.quantiles.median() / outcome(&next) - 1.0).abs() < 0.1);
//! assert!(forecast.quantiles.q90() >= forecast.quantiles.median());
//! ```
//!
//! # Saved states
//!
//! The models implement serde's traits. Use a format that keeps every digit of an `f64`: with `serde_json` switch
//! its feature `float_roundtrip` on. States carry a version, and one of another version is refused, not guessed at.

mod anomaly;
mod backtest;
mod brief;
mod capacity;
mod demand;
mod error;
mod linear;
mod quantiles;
mod silent;
mod wait;

pub use anomaly::{Anomaly, AnomalyKind, AnomalyWatch, OwnPace, PaceLaw, TokenWork, Verdict, Vitals, judge};
pub use backtest::{
    Backtest, Issue, Policy, Reference, ReplicaScore, Score, Series, backtest, score, score_reference,
    score_replicas,
};
pub use capacity::{CapacityEstimate, CapacityModel, LatencyTarget, LoadWindow};
pub use demand::{
    DemandConfig, DemandForecast, DemandForecaster, DemandModel, Expert, ExpertStanding, FleetFit, FleetFits,
    Grid, HISTORY_SEASONS, HorizonForecast, Standing,
};
pub use error::Error;
pub use quantiles::{QUANTILES, Quantiles};
pub use wait::{
    WaitBacktest, WaitConfig, WaitExpert, WaitForecast, WaitForecastRow, WaitModel, WaitQuery, WaitRow,
    WaitScore, WaitStanding, WaitState, WaitTicket, WaitView, backtest_waits, last_observed_waits,
    little_waits, score_waits,
};
