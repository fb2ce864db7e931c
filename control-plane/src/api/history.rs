use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::store::{Metric, Source, Subject};

use super::{ApiError, ApiState};

/// What is shown when nothing is asked for.
const USUAL: TimeDelta = TimeDelta::hours(1);
/// A chart reaches back ten years at most.
const LONGEST: TimeDelta = TimeDelta::days(3_660);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    model: Option<String>,
    pool: Option<String>,
    backend: Option<String>,
    metric: Metric,
    from: Option<String>,
    to: Option<String>,
}

/// One metric over a span of time.
#[derive(Serialize)]
pub(super) struct Answer {
    metric: Metric,
    /// Which rows it comes from: `raw`, `minutes` or `hours`.
    source: Source,
    step_seconds: u32,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    /// Start of the step, in Unix seconds.
    t: i64,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
}

/// A metric of a model, a pool or a backend, in at most about 1,000 points.
pub(super) async fn read(
    State(state): State<ApiState>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Json<Answer>, ApiError> {
    let Query(asked) = asked.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let config = state.config.load_full();
    let (subject, is_known) = subject(&asked, &config)?;
    let now = Utc::now();
    let to = asked.to.as_deref().map_or(Ok(now), |text| time("to", text))?;
    let from = asked.from.as_deref().map_or(Ok(to - USUAL), |text| time("from", text))?;
    if from >= to || to - from > LONGEST {
        return Err(ApiError::bad_request("`from` must lie before `to`, by ten years at most"));
    }
    let store = state.store.borrow().clone();
    let store = store.ok_or_else(|| ApiError::unavailable("the database is away"))?;
    let retention = config.database.retention.days();
    let history = store.history(&subject, asked.metric, (from, to), &retention, now).await;
    let history = history.map_err(|error| ApiError::unavailable(error.to_string()))?;
    let (source, step_seconds, points) = match history {
        Some(history) => (history.source, history.step_seconds, history.points),
        // Configured, and not measured yet.
        None if is_known => (Source::Minutes, 60, Vec::new()),
        None => return Err(ApiError::not_found(format!("there is no {subject}"))),
    };
    let points =
        points.iter().map(|point| Point { t: point.at.timestamp(), value: point.value, max: point.max });
    Ok(Json(Answer { metric: asked.metric, source, step_seconds, from, to, points: points.collect() }))
}

/// Whose history is asked for, and whether the configuration names it.
fn subject(asked: &Asked, config: &Config) -> Result<(Subject, bool), ApiError> {
    match (&asked.model, &asked.pool, &asked.backend) {
        (Some(name), None, None) => {
            let is_known = config.models.iter().any(|model| model.name == *name);
            Ok((Subject::Model(name.clone()), is_known))
        }
        (None, Some(name), None) => Ok((Subject::Pool(name.clone()), config.pool(name).is_some())),
        (None, None, Some(address)) => {
            let is_known = config
                .pools
                .iter()
                .any(|pool| pool.backends.iter().any(|known| known.to_string() == *address));
            Ok((Subject::Backend(address.clone()), is_known))
        }
        _ => Err(ApiError::bad_request("say one of `model`, `pool` and `backend`")),
    }
}

/// Reads Unix seconds or RFC 3339.
fn time(field: &str, text: &str) -> Result<DateTime<Utc>, ApiError> {
    let parsed = match text.parse::<i64>() {
        Ok(seconds) => DateTime::from_timestamp(seconds, 0),
        Err(_) => text.parse().ok(),
    };
    // Beyond these years Postgres or the arithmetic may refuse it.
    let is_sane = |at: &DateTime<Utc>| (0..=32_503_680_000).contains(&at.timestamp());
    parsed.filter(is_sane).ok_or_else(|| {
        ApiError::bad_request(format!(
            "`{field}`: {text:?} is no time; write Unix seconds or 2026-03-01T12:00:00Z"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_dates() {
        let expected = DateTime::from_timestamp(1_772_366_400, 0).unwrap();
        assert_eq!(time("to", "1772366400").unwrap(), expected);
        assert_eq!(time("to", "2026-03-01T12:00:00Z").unwrap(), expected);
        for bad in ["yesterday", "-5", "99999999999999"] {
            assert!(format!("{:?}", time("to", bad).unwrap_err()).contains("is no time"), "{bad}");
        }
    }

    #[test]
    fn one_subject_is_needed() {
        let asked = |model: Option<&str>, pool: Option<&str>| Asked {
            model: model.map(Into::into),
            pool: pool.map(Into::into),
            backend: None,
            metric: Metric::QueueDepth,
            from: None,
            to: None,
        };
        let config = Config::default();
        assert!(subject(&asked(None, None), &config).is_err());
        assert!(subject(&asked(Some("a"), Some("b")), &config).is_err());
        let (found, is_known) = subject(&asked(None, Some("b")), &config).unwrap();
        assert_eq!((found, is_known), (Subject::Pool("b".into()), false));
    }
}
