use serde::{Deserialize, Serialize};

use crate::store::rollup::Merge;

use super::Source;

/// What can be charted. Names carry units: none for counts of requests and for parts of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Requests that wait; of a group, their sum.
    QueueDepth,
    /// Requests in the running batches; of a group, their sum.
    Running,
    /// Part of the KV cache in use.
    KvUsed,
    /// GPU utilisation, 0 to 1.
    GpuUtilisation,
    /// Mean time to first token.
    TtftSeconds,
    /// Mean of its medians.
    TtftP50Seconds,
    /// Mean of its 95th percentiles.
    TtftP95Seconds,
    /// Mean time between output tokens.
    InterTokenSeconds,
    /// Mean of its 95th percentiles.
    InterTokenP95Seconds,
    /// Mean wait for a place in the batch.
    QueueWaitSeconds,
    /// Requests that arrived, per second.
    ArrivedPerSecond,
    /// Requests that ended, per second.
    CompletedPerSecond,
    /// Prompt tokens processed, per second.
    PromptTokensPerSecond,
    /// Output tokens produced, per second.
    OutputTokensPerSecond,
    /// Steps of the engines, per second.
    IterationsPerSecond,
    /// Requests put back into the queue, per second.
    PreemptedPerSecond,
    /// Tokens that one step of an engine processes.
    TokensPerIteration,
}

/// How a metric is made from columns.
#[derive(Clone, Copy)]
enum Shape {
    /// A gauge; whether a group has the sum of it.
    Gauge { raw: &'static str, is_total: bool },
    /// A mean with its weight, and whether there is a column with the maximum.
    Mean { column: &'static str, weight: &'static str, has_max: bool },
    /// A count per second.
    Rate(&'static str),
    /// One count by another.
    Ratio(&'static str, &'static str),
}

impl Metric {
    fn shape(self) -> Shape {
        let mean = |column, weight, has_max| Shape::Mean { column, weight, has_max };
        match self {
            Self::QueueDepth => Shape::Gauge { raw: "queue_depth", is_total: true },
            Self::Running => Shape::Gauge { raw: "running", is_total: true },
            Self::KvUsed => Shape::Gauge { raw: "kv_used", is_total: false },
            Self::GpuUtilisation => Shape::Gauge { raw: "gpu_utilisation", is_total: false },
            Self::TtftSeconds => mean("ttft_seconds", "ttft_count", false),
            Self::TtftP50Seconds => mean("ttft_p50_seconds", "ttft_count", true),
            Self::TtftP95Seconds => mean("ttft_p95_seconds", "ttft_count", true),
            Self::InterTokenSeconds => mean("inter_token_seconds", "output_tokens", false),
            Self::InterTokenP95Seconds => mean("inter_token_p95_seconds", "output_tokens", true),
            Self::QueueWaitSeconds => mean("queue_wait_seconds", "ttft_count", false),
            Self::ArrivedPerSecond => Shape::Rate("arrived"),
            Self::CompletedPerSecond => Shape::Rate("completed"),
            Self::PromptTokensPerSecond => Shape::Rate("prompt_tokens"),
            Self::OutputTokensPerSecond => Shape::Rate("output_tokens"),
            Self::IterationsPerSecond => Shape::Rate("iterations"),
            Self::PreemptedPerSecond => Shape::Rate("preempted"),
            Self::TokensPerIteration => Shape::Ratio("iteration_tokens", "iterations"),
        }
    }

    /// Returns the query. Its parameters are the ids (of backends, or of one group), the span's begin and end, the step
    /// in seconds, and for [`Source::Hours`] the time from which minutes are read in place of hours.
    pub(super) fn statement(self, source: Source, is_group: bool) -> String {
        let rows = match source {
            Source::Raw => return self.raw_statement(is_group),
            Source::Minutes => rolled_up(is_group, "minute", "$2", "$3"),
            Source::Hours => {
                let hours = rolled_up(is_group, "hour", "$2", "least($3, $5)");
                let minutes = rolled_up(is_group, "minute", "greatest($2, $5)", "$3");
                return stepped(&format!("({hours} UNION ALL {minutes}) AS rows"), self.merged());
            }
        };
        stepped(&format!("({rows}) AS rows"), self.merged())
    }

    /// Value and maximum from rows of minutes or hours.
    fn merged(self) -> (String, String) {
        const NONE: &str = "NULL::float8";
        match self.shape() {
            Shape::Gauge { raw, .. } => {
                let max = Merge::Max.sql(&format!("{raw}_max"));
                (Merge::Mean("covered_seconds").sql(&format!("{raw}_mean")), max)
            }
            Shape::Mean { column, weight, has_max } => {
                let max = column.strip_suffix("_seconds").filter(|_| has_max);
                let max =
                    max.map_or(NONE.to_owned(), |column| Merge::Max.sql(&format!("{column}_max_seconds")));
                (Merge::Mean(weight).sql(column), max)
            }
            Shape::Rate(column) => {
                (format!("sum({column}) / nullif(sum(covered_seconds), 0)"), NONE.to_owned())
            }
            Shape::Ratio(top, bottom) => (format!("sum({top}) / nullif(sum({bottom}), 0)"), NONE.to_owned()),
        }
    }

    /// From samples, first by backend, as several of one backend within a step are not several backends.
    fn raw_statement(self, is_group: bool) -> String {
        let (inner, value, max) = match self.shape() {
            Shape::Gauge { raw, is_total } => {
                let largest = if raw == "kv_used" { "coalesce(kv_used_max, kv_used)" } else { raw };
                let outer = if is_total && is_group { "sum(a)" } else { "avg(a)" };
                (format!("avg({raw}) AS a, max({largest})::float8 AS m"), outer.to_owned(), "max(m)")
            }
            Shape::Mean { column, weight, has_max } => (
                format!(
                    "sum({column} * {weight}) AS a, sum({weight}) FILTER (WHERE {column} IS NOT NULL) AS b, \
                     avg({column}) AS c, max({column})::float8 AS m"
                ),
                "coalesce(sum(a) / nullif(sum(b), 0), avg(c))".to_owned(),
                if has_max { "max(m)" } else { "NULL::float8" },
            ),
            Shape::Rate(column) => (
                format!("sum({column}::float8) AS a, sum(interval_seconds::float8) AS b"),
                "sum(a) / nullif(max(b), 0)".to_owned(),
                "NULL::float8",
            ),
            Shape::Ratio(top, bottom) => (
                format!("sum({top}::float8) AS a, sum({bottom}::float8) AS b"),
                "sum(a) / nullif(sum(b), 0)".to_owned(),
                "NULL::float8",
            ),
        };
        format!(
            "SELECT at, value, max FROM (
                 SELECT step AS at, {value} AS value, {max} AS max FROM (
                     SELECT {STEP} AS step, {inner} FROM backend_sample
                     WHERE at >= $2 AND at < $3 AND backend_id = ANY($1) GROUP BY step, backend_id
                 ) AS backends GROUP BY step
             ) AS steps WHERE value IS NOT NULL ORDER BY at"
        )
    }
}

const STEP: &str = "date_bin(make_interval(secs => $4), at, timestamptz '2000-01-01 00:00:00+00')";

fn rolled_up(is_group: bool, unit: &str, from: &str, to: &str) -> String {
    let (table, id) = if is_group { ("group", "group_id") } else { ("backend", "backend_id") };
    format!(
        "SELECT {unit} AS at, samples, covered_seconds, queue_depth_mean, queue_depth_max, running_mean, running_max,
                kv_used_mean, kv_used_max, gpu_utilisation_mean, gpu_utilisation_max, ttft_seconds, ttft_count,
                ttft_p50_seconds, ttft_p50_max_seconds, ttft_p95_seconds, ttft_p95_max_seconds, inter_token_seconds,
                inter_token_p95_seconds, inter_token_p95_max_seconds, queue_wait_seconds, arrived, completed,
                prompt_tokens, output_tokens, iterations, iteration_tokens, preempted
         FROM {table}_{unit} WHERE {id} = ANY($1) AND {unit} >= {from} AND {unit} < {to}"
    )
}

fn stepped(rows: &str, (value, max): (String, String)) -> String {
    format!(
        "SELECT at, value, max FROM (
             SELECT {STEP} AS at, {value} AS value, {max} AS max FROM {rows} GROUP BY 1
         ) AS steps WHERE value IS NOT NULL ORDER BY at"
    )
}
