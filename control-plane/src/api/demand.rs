use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::config::Config;
use crate::run::{Command, demand_history};
use crate::store::{DemandRow, Store};
use crate::view::{ActualPoint, Demand, ForecastPoint, IssuedPoint, LatestForecast};

use super::{ApiError, ApiState};

const LONGEST_WINDOW_SECONDS: u32 = 31 * 24 * 3600;

#[derive(Deserialize)]
pub(super) struct Window {
    model: String,
    window_seconds: Option<u32>,
}

/// Demand of one model as it came, as it had been forecast, and as it is forecast now.
pub(super) async fn read(
    State(state): State<ApiState>,
    Query(query): Query<Window>,
) -> Result<Json<Demand>, ApiError> {
    let config = state.config.load_full();
    known_model(&config, &query.model)?;
    let store = open_store(&state)?;
    let now = Utc::now();
    let window = query.window_seconds.unwrap_or(600).clamp(1, LONGEST_WINDOW_SECONDS);
    let from = now - TimeDelta::seconds(i64::from(window));
    let step_seconds = step_seconds(&config);
    let horizon_seconds = shown_horizon_seconds(&config, &query.model);
    let failed = |error: crate::store::StoreError| ApiError::unavailable(error.to_string());
    let actual = store.demand(&query.model, step_seconds, from, now).await.map_err(failed)?;
    let issued = store.forecasts_as_issued(&query.model, horizon_seconds, from, now).await.map_err(failed)?;
    let latest = store.latest_forecast(&query.model).await.map_err(failed)?;
    let points = |row: &crate::store::ForecastRow| ForecastPoint {
        t: row.target_at.timestamp(),
        q10: row.q10,
        q50: row.q50,
        q90: row.q90,
        q95: row.q95,
        q99: row.q99,
    };
    Ok(Json(Demand {
        model: query.model,
        step_seconds,
        // A forecast is made when its origin step ends, one step after it began.
        lead_seconds: horizon_seconds.saturating_sub(step_seconds),
        actual: actual
            .iter()
            .map(|row| ActualPoint { t: row.at.timestamp(), rps: row.requests_per_second })
            .collect(),
        issued: issued
            .iter()
            .map(|row| IssuedPoint {
                t: row.target_at.timestamp(),
                issued_at: row.issued_at.timestamp(),
                q10: row.q10,
                q50: row.q50,
                q90: row.q90,
            })
            .collect(),
        latest: latest.first().map(|first| LatestForecast {
            issued_at: first.issued_at.timestamp(),
            points: latest.iter().map(points).collect(),
        }),
    }))
}

/// Takes demand history as CSV (`timestamp_s,model,rps`), and has the forecasts learn it.
pub(super) async fn import(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: String,
) -> Result<Json<Value>, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("text/csv") {
        return Err(ApiError::bad_request("send `Content-Type: text/csv` and rows of timestamp_s,model,rps"));
    }
    let config = state.config.load_full();
    let step_seconds = step_seconds(&config);
    let parsed = tokio::task::spawn_blocking(move || parse(&body, step_seconds)).await;
    let rows = parsed.map_err(|error| ApiError::unavailable(error.to_string()))??;
    let models: BTreeSet<&str> = rows.iter().map(|row| row.model.as_str()).collect();
    for model in &models {
        known_model(&config, model)?;
    }
    let store = open_store(&state)?;
    let failed = |error: crate::store::StoreError| ApiError::unavailable(error.to_string());
    let written = store.put_demand(step_seconds, &rows).await.map_err(failed)?;
    let mut histories = Vec::new();
    for model in models {
        let (first_step, values) =
            demand_history(&store, &config, model, None, Utc::now()).await.map_err(failed)?;
        histories.push((model.to_owned(), first_step, values));
    }
    let sent = state.commands.send(Command::Learn(histories)).await;
    sent.map_err(|_| ApiError::unavailable("the controller does not answer"))?;
    Ok(Json(json!({"rows": written})))
}

fn parse(body: &str, step_seconds: u32) -> Result<Vec<DemandRow>, ApiError> {
    let mut rows: BTreeMap<(i64, &str), f64> = BTreeMap::new();
    for (index, line) in body.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || (index == 0 && line.starts_with("timestamp_s")) {
            continue;
        }
        let fault = |what: &str| ApiError::bad_request(format!("line {}: {what}: {line:?}", index + 1));
        let mut fields = line.split(',').map(str::trim);
        let (Some(time), Some(model), Some(rate), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(fault("not three fields timestamp_s,model,rps"));
        };
        if rate.is_empty() {
            // An empty rate is a gap: the collector was down.
            continue;
        }
        let time: f64 = time.parse().map_err(|_| fault("timestamp_s is no number"))?;
        let rate: f64 = rate.parse().map_err(|_| fault("rps is no number"))?;
        if !(rate.is_finite() && (0.0..1e9).contains(&rate)) {
            return Err(fault("rps is negative or absurd"));
        }
        if !(0.0..1e11).contains(&time) {
            return Err(fault("timestamp_s is not in Unix seconds"));
        }
        let step = (time / f64::from(step_seconds)).floor() as i64 * i64::from(step_seconds);
        rows.insert((step, model), rate);
    }
    if rows.is_empty() {
        return Err(ApiError::bad_request("no rows: send lines of timestamp_s,model,rps"));
    }
    let row = |((time, model), rate): ((i64, &str), f64)| {
        DateTime::<Utc>::from_timestamp(time, 0).map(|at| DemandRow {
            model: model.to_owned(),
            at,
            requests_per_second: rate,
        })
    };
    Ok(rows.into_iter().filter_map(row).collect())
}

fn known_model(config: &Config, model: &str) -> Result<(), ApiError> {
    if config.models.iter().any(|known| known.name == model) {
        return Ok(());
    }
    Err(ApiError::not_found(format!("there is no model `{model}` in the configuration")))
}

fn open_store(state: &ApiState) -> Result<Store, ApiError> {
    state.store.borrow().clone().ok_or_else(|| ApiError::unavailable("the database is away"))
}

fn step_seconds(config: &Config) -> u32 {
    u32::try_from(config.forecast.step.0.as_secs()).unwrap_or(u32::MAX)
}

/// The horizon at which past forecasts are shown, counted from the start of the origin step: the first one whose step
/// begins no sooner than the longest cold start of the model's pools after the forecast is made, or the farthest.
fn shown_horizon_seconds(config: &Config, model: &str) -> u32 {
    let pools = config.models.iter().find(|known| known.name == model).map(|model| model.pools.as_slice());
    let pools = pools.unwrap_or_default().iter().filter_map(|name| config.pool(name));
    let cold_start = pools.map(|pool| pool.replicas.cold_start.0).max().unwrap_or_default();
    let mut horizons: Vec<_> = config.forecast.horizons.iter().map(|horizon| horizon.0).collect();
    horizons.sort_unstable();
    let reach =
        horizons.iter().find(|horizon| **horizon >= cold_start + config.forecast.step.0).or(horizons.last());
    reach.and_then(|reach| u32::try_from(reach.as_secs()).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::parse;

    proptest! {
        #![proptest_config(crate::fuzz::cases())]

        #[test]
        fn what_was_written_is_read(
            rates in proptest::collection::btree_map(0_i64..1_000_000, 0.0_f64..1e8, 1..30), step in 1_u32..100,
        ) {
            let step_seconds = i64::from(step);
            let lines: Vec<String> =
                rates.iter().map(|(at, rate)| format!("{},m,{rate}", at * step_seconds)).collect();
            let rows = parse(&format!("timestamp_s,model,rps\r\n{}", lines.join("\r\n")), step).unwrap();
            let seen: Vec<_> = rows
                .iter()
                .map(|row| (row.at.timestamp() / step_seconds, row.requests_per_second))
                .collect();
            prop_assert_eq!(seen, rates.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_text_is_rows_that_can_be_or_refused(
            body in "((timestamp_s,model,rps|[0-9eE.+-]{0,6}|nan|inf|-inf|1e999|,|m|\"|\n|\r|.){0,3}[,\n]){0,20}",
            step in 1_u32..1000,
        ) {
            for row in parse(&body, step).unwrap_or_default() {
                prop_assert!(row.requests_per_second.is_finite() && row.requests_per_second >= 0.0);
                prop_assert_eq!(row.at.timestamp() % i64::from(step), 0);
            }
        }
    }

    #[test]
    fn history_is_put_on_the_grid_and_gaps_are_left_out() {
        let rows = parse("timestamp_s,model,rps\n1000,chat,2.5\n1011,chat,3\n1020,chat,\n", 10).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.at.timestamp(), row.requests_per_second)).collect();
        assert_eq!(seen, [(1000, 2.5), (1010, 3.0)]);
    }

    #[test]
    fn a_bad_row_is_named() {
        for (body, expected) in [
            ("1,chat,x", "line 1"),
            ("1,chat,1\n2,chat,-4", "line 2"),
            ("1,chat", "three fields"),
            ("", "no rows"),
        ] {
            let error = format!("{:?}", parse(body, 10).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
