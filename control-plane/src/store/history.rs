//! Charts: one metric of one backend, pool or model over any span, from the coarsest rows that are fine enough.

mod metric;
mod plan;

use std::fmt;

use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;

use super::Store;
use super::error::StoreError;
use super::settings::Retention;

pub use self::metric::Metric;
pub use self::plan::Source;

use self::plan::Plan;

/// Whose history it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A backend by its address, `host:port`.
    Backend(String),
    /// A pool by its name.
    Pool(String),
    /// A model by its name.
    Model(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend(address) => write!(formatter, "backend `{address}`"),
            Self::Pool(name) => write!(formatter, "pool `{name}`"),
            Self::Model(name) => write!(formatter, "model `{name}`"),
        }
    }
}

/// One metric over a span of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The rows it was made from.
    pub source: Source,
    /// Length of a step, in seconds.
    pub step_seconds: u32,
    /// Steps that have a value, oldest first.
    pub points: Vec<HistoryPoint>,
}

/// One step of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, sqlx::FromRow)]
pub struct HistoryPoint {
    /// Start of the step.
    pub at: DateTime<Utc>,
    /// Mean, rate or ratio over the step, in the unit of the metric.
    pub value: f64,
    /// Largest value of a backend within the step, for gauges and quantiles.
    pub max: Option<f64>,
}

/// An hour is read from its minutes until this long after its end.
const HOURS_SETTLE: TimeDelta = TimeDelta::minutes(5);

impl Store {
    /// Returns a metric over `from..to` in at most about 1,000 steps; `None` when nothing is known of the subject.
    ///
    /// Minutes and hours are there shortly after their end; until then they are read from what they are made of, or
    /// missing at the end of the chart. `retention` tells which rows are left.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn history(
        &self,
        subject: &Subject,
        metric: Metric,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        retention: &Retention,
        now: DateTime<Utc>,
    ) -> Result<Option<History>, StoreError> {
        let failed = StoreError::query("read history");
        self.try_history(subject, metric, (from, to), retention, now).await.map_err(failed)
    }

    async fn try_history(
        &self,
        subject: &Subject,
        metric: Metric,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        retention: &Retention,
        now: DateTime<Utc>,
    ) -> Result<Option<History>, sqlx::Error> {
        let is_group = !matches!(subject, Subject::Backend(_));
        let Plan { source, step_seconds } = Plan::of(is_group, from, to, retention, now);
        // The first part of an hour has no row of its own.
        let from = source.start_of(from);
        let lookup = match (subject, source) {
            (Subject::Backend(_), _) => "SELECT id FROM backend WHERE address = $1",
            (Subject::Pool(_), Source::Raw) => "SELECT id FROM backend WHERE pool = $1",
            (Subject::Model(_), Source::Raw) => "SELECT id FROM backend WHERE model = $1",
            (Subject::Pool(_), _) => "SELECT id FROM fleet_group WHERE kind = 'pool' AND name = $1",
            (Subject::Model(_), _) => "SELECT id FROM fleet_group WHERE kind = 'model' AND name = $1",
        };
        let (Subject::Backend(name) | Subject::Pool(name) | Subject::Model(name)) = subject;
        let ids: Vec<i32> = sqlx::query_scalar(lookup).bind(name).fetch_all(self.pool()).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let whole_hours = (now - HOURS_SETTLE).duration_trunc(TimeDelta::hours(1)).unwrap_or(now);
        let statement = metric.statement(source, is_group);
        let mut query = sqlx::query_as(AssertSqlSafe(statement))
            .bind(ids)
            .bind(from)
            .bind(to)
            .bind(f64::from(step_seconds));
        if source == Source::Hours {
            query = query.bind(whole_hours.clamp(from, to.max(from)));
        }
        let points = query.fetch_all(self.pool()).await?;
        Ok(Some(History { source, step_seconds, points }))
    }
}
