use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Demand of one model, past and forecast.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Demand {
    /// The model.
    pub model: String,
    /// Length of a step, seconds.
    pub step_seconds: u32,
    /// How long before the start of a step the forecast in `issued` was made, at least, seconds.
    pub lead_seconds: u32,
    /// What came.
    pub actual: Vec<ActualPoint>,
    /// What had been forecast for each step, `lead_seconds` before.
    pub issued: Vec<IssuedPoint>,
    /// The newest forecast.
    pub latest: Option<LatestForecast>,
}

/// Demand in one step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ActualPoint {
    /// Start of the step, Unix seconds.
    pub t: i64,
    /// Requests/s.
    pub rps: f64,
}

/// What had been forecast for one step.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IssuedPoint {
    /// Start of the step, Unix seconds.
    pub t: i64,
    /// When the forecast was made, Unix seconds.
    pub issued_at: i64,
    /// 10 % quantile, requests/s.
    pub q10: f64,
    /// Median, requests/s.
    pub q50: f64,
    /// 90 % quantile, requests/s.
    pub q90: f64,
}

/// The newest forecast of a model.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LatestForecast {
    /// When it was made, Unix seconds.
    pub issued_at: i64,
    /// One point a horizon, nearest first.
    pub points: Vec<ForecastPoint>,
}

/// One step of a forecast, requests/s.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ForecastPoint {
    /// Start of the step, Unix seconds.
    pub t: i64,
    /// 10 % quantile.
    pub q10: f64,
    /// Median.
    pub q50: f64,
    /// 90 % quantile.
    pub q90: f64,
    /// 95 % quantile.
    pub q95: f64,
    /// 99 % quantile.
    pub q99: f64,
}
