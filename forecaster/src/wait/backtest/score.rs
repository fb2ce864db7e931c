use serde::{Deserialize, Serialize};

use super::{WaitForecastRow, WaitRow, in_order_of_first_tokens, seen};

/// The share of a server's rows that come before the first that is scored.
const WARM_UP: f64 = 0.4;

/// The time over which Little's law takes the rate of completions, in seconds.
const COMPLETIONS_SECONDS: f64 = 10.0;

/// How the forecasts of one server did on the last three fifths of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitScore {
    /// Sum of the absolute errors of the median over the sum of the TTFTs.
    pub wape: f64,
    /// Spearman's rank correlation of median and TTFT, ties at their mean rank.
    pub spearman: f64,
    /// Share of the TTFTs that were not above the bound.
    pub coverage: f64,
}

impl WaitScore {
    /// Returns the mean of scores; `None` without any.
    pub fn mean(scores: &[Self]) -> Option<Self> {
        let mean = |of: fn(&Self) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
        (!scores.is_empty()).then(|| Self {
            wape: mean(|score| score.wape),
            spearman: mean(|score| score.spearman),
            coverage: mean(|score| score.coverage),
        })
    }
}

/// Scores medians and bounds, in seconds, one pair for each row; `None` when they are not as many, or the scored rows
/// have no wait at all.
pub fn score_waits(rows: &[WaitRow], said: &[(f64, f64)]) -> Option<WaitScore> {
    if rows.len() != said.len() {
        return None;
    }
    let from = (WARM_UP * rows.len() as f64) as usize;
    let (rows, said) = (&rows[from..], &said[from..]);
    let actual: Vec<f64> = rows.iter().map(|row| row.ttft_seconds).collect();
    let medians: Vec<f64> = said.iter().map(|(median, _)| *median).collect();
    let total: f64 = actual.iter().sum();
    let errors: f64 = actual.iter().zip(&medians).map(|(actual, median)| (actual - median).abs()).sum();
    let held = actual.iter().zip(said).filter(|(actual, (_, bound))| *actual <= bound).count();
    (total > 0.0).then(|| WaitScore {
        wape: errors / total,
        spearman: correlation(&ranks(&medians), &ranks(&actual)),
        coverage: held as f64 / rows.len() as f64,
    })
}

impl From<&WaitForecastRow> for (f64, f64) {
    fn from(row: &WaitForecastRow) -> Self {
        (row.forecast.quantiles.median(), row.forecast.quantiles.q90())
    }
}

/// What the TTFT that was observed last says of every row, in seconds; 0.1 before there is one.
pub fn last_observed_waits(rows: &[WaitRow]) -> Vec<f64> {
    let outcomes = in_order_of_first_tokens(rows);
    let mut known = outcomes.iter().peekable();
    let mut last = 0.1;
    let said = rows.iter().map(|row| {
        while let Some((_, index)) = known.next_if(|(at, _)| *at <= row.at_seconds) {
            last = rows[*index].ttft_seconds;
        }
        last
    });
    said.collect()
}

/// What the queue of a state of the given age over the rate of first tokens says of every row, in seconds.
pub fn little_waits(rows: &[WaitRow], age_seconds: f64) -> Vec<f64> {
    let outcomes = in_order_of_first_tokens(rows);
    let said = rows.iter().enumerate().map(|(index, row)| {
        let until = |at: f64| outcomes.partition_point(|(first_token, _)| *first_token <= at);
        let completed = until(row.at_seconds) - until(row.at_seconds - COMPLETIONS_SECONDS);
        let rate = (completed as f64 / COMPLETIONS_SECONDS).max(1.0 / COMPLETIONS_SECONDS);
        let waiting = seen(rows, index, age_seconds).and_then(|seen| rows[seen].state.waiting);
        waiting.unwrap_or(0.0) / rate
    });
    said.collect()
}

/// Ranks from 0, ties at their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    for tied in order.chunk_by(|a, b| values[*a] == values[*b]).scan(0, |from, tied| {
        let mean = *from as f64 + (tied.len() - 1) as f64 / 2.0;
        *from += tied.len();
        Some((mean, tied))
    }) {
        tied.1.iter().for_each(|index| ranks[*index] = tied.0);
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let product = |x: &[f64], mean_x: f64, y: &[f64], mean_y: f64| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - mean_x) * (y - mean_y)).sum()
    };
    let spread = (product(a, mean_a, a, mean_a) * product(b, mean_b, b, mean_b)).sqrt();
    if spread > 0.0 { product(a, mean_a, b, mean_b) / spread } else { 0.0 }
}
