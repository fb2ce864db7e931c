//! The columns that the tables of minutes and hours have in common, and how rows of them become one.

use std::fmt::Write as _;

/// How the values of several rows become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Merge {
    Sum,
    Max,
    /// The mean weighted by another column; the plain one where all weights are 0. Quantiles are merged so, too: they
    /// cannot be added up, and the mean weighted by counts lies near the true one while rows are alike. The column
    /// with the maximum beside it bounds it from above.
    Mean(&'static str),
}

impl Merge {
    /// Returns the aggregate in SQL.
    pub(in crate::store) fn sql(self, column: &str) -> String {
        match self {
            Self::Sum => format!("sum({column})"),
            Self::Max => format!("max({column})"),
            Self::Mean(weight) => format!(
                "coalesce(sum({column} * {weight}) / nullif(sum({weight}) FILTER (WHERE {column} IS NOT NULL), 0), \
                 avg({column}))"
            ),
        }
    }
}

struct Measure {
    column: &'static str,
    /// For minutes that become an hour.
    over_time: Merge,
    /// For backends that become a pool or a model.
    over_backends: Merge,
}

const fn both(column: &'static str, merge: Merge) -> Measure {
    Measure { column, over_time: merge, over_backends: merge }
}

/// A gauge of which a group has the sum.
const fn total(column: &'static str) -> Measure {
    Measure { column, over_time: TIME, over_backends: Merge::Sum }
}

const TIME: Merge = Merge::Mean("covered_seconds");
const FIRST_TOKENS: Merge = Merge::Mean("ttft_count");
const TOKENS: Merge = Merge::Mean("output_tokens");

const MEASURES: [Measure; 28] = [
    both("samples", Merge::Sum),
    Measure { column: "covered_seconds", over_time: Merge::Sum, over_backends: Merge::Max },
    total("queue_depth_mean"),
    both("queue_depth_max", Merge::Max),
    total("running_mean"),
    both("running_max", Merge::Max),
    both("kv_used_mean", TIME),
    both("kv_used_max", Merge::Max),
    both("gpu_utilisation_mean", TIME),
    both("gpu_utilisation_max", Merge::Max),
    both("ttft_seconds", FIRST_TOKENS),
    both("ttft_p50_seconds", FIRST_TOKENS),
    both("ttft_p50_max_seconds", Merge::Max),
    both("ttft_p95_seconds", FIRST_TOKENS),
    both("ttft_p95_max_seconds", Merge::Max),
    both("inter_token_seconds", TOKENS),
    both("inter_token_p95_seconds", TOKENS),
    both("inter_token_p95_max_seconds", Merge::Max),
    both("queue_wait_seconds", FIRST_TOKENS),
    both("ttft_count", Merge::Sum),
    both("arrived", Merge::Sum),
    both("completed", Merge::Sum),
    both("prompt_tokens", Merge::Sum),
    both("output_tokens", Merge::Sum),
    both("iterations", Merge::Sum),
    both("iteration_tokens", Merge::Sum),
    both("preempted", Merge::Sum),
    Measure { column: "backends", over_time: Merge::Max, over_backends: Merge::Sum },
];

/// Returns the columns that backends have.
fn of_backends() -> impl Iterator<Item = &'static Measure> {
    MEASURES.iter().filter(|measure| measure.column != "backends")
}

/// The statement that makes an hour (`$1`) of backends from their minutes.
pub(super) fn backend_hour() -> String {
    let (mut columns, mut values) = (String::new(), String::new());
    for measure in of_backends() {
        let _ = write!(columns, ", {}", measure.column);
        let _ = write!(values, ", {}", measure.over_time.sql(measure.column));
    }
    format!(
        "INSERT INTO backend_hour (hour, backend_id{columns}) SELECT $1, backend_id{values} FROM backend_minute
         WHERE minute >= $1 AND minute < $1 + interval '1 hour' GROUP BY backend_id"
    )
}

/// The statement that makes an hour (`$1`) of groups from their minutes.
pub(super) fn group_hour() -> String {
    let (mut columns, mut values) = (String::new(), String::new());
    for measure in &MEASURES {
        let _ = write!(columns, ", {}", measure.column);
        let _ = write!(values, ", {}", measure.over_time.sql(measure.column));
    }
    format!(
        "INSERT INTO group_hour (hour, group_id{columns}) SELECT $1, group_id{values} FROM group_minute
         WHERE minute >= $1 AND minute < $1 + interval '1 hour' GROUP BY group_id"
    )
}

/// The statement that makes minutes (`$1`, an array) of groups from those of their backends.
pub(super) fn group_minutes() -> String {
    let (mut columns, mut values) = (String::new(), String::new());
    for measure in of_backends() {
        let _ = write!(columns, ", {}", measure.column);
        let _ = write!(values, ", {}", measure.over_backends.sql(measure.column));
    }
    format!(
        "WITH member AS (
             SELECT b.id AS backend_id, g.id AS group_id
             FROM backend b JOIN fleet_group g ON g.kind = 'pool' AND g.name = b.pool
             UNION ALL
             SELECT b.id, g.id FROM backend b JOIN fleet_group g ON g.kind = 'model' AND g.name = b.model
         )
         INSERT INTO group_minute (minute, group_id, backends{columns})
         SELECT minute, group_id, count(*){values} FROM backend_minute JOIN member USING (backend_id)
         WHERE minute = ANY($1) GROUP BY minute, group_id
         ON CONFLICT (group_id, minute) DO NOTHING"
    )
}
