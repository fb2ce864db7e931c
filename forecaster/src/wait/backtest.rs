//! Judges wait models on a record of arrivals, their states and their outcomes: what a router or a control plane would
//! have said, by the rule that nothing is known before it happened.

use serde::{Deserialize, Serialize};

use super::{WaitConfig, WaitForecast, WaitModel, WaitQuery, WaitState};

mod score;

pub use score::{WaitScore, last_observed_waits, little_waits, score_waits};

/// Outcomes between two fits.
const REFIT_EVERY: u64 = 200;

/// The time over which a control plane takes the rate of arrivals, in seconds.
const ARRIVALS_SECONDS: f64 = 10.0;

/// One request of a record: what its backend showed just before it arrived, what it asked for, and what it got.
///
/// The state's age is ignored: it is the row's. The rows of a server are in order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct WaitRow {
    /// When it arrived, in seconds.
    pub at_seconds: f64,
    /// What the backend showed.
    pub state: WaitState,
    /// Tokens of its prompt.
    pub prompt_tokens: f64,
    /// Its outcome: time from arrival to the first token, in seconds.
    pub ttft_seconds: f64,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitView {
    /// Knows the prompt of each request, the prompt tokens that wait and what it sent since the state was taken.
    Router,
    /// Knows gauges and counters of a scrape and how long the requests took.
    ControlPlane,
}

/// How a record is judged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitBacktest {
    /// Who asks.
    pub view: WaitView,
    /// Least age of the state that is seen, in seconds.
    pub age_seconds: f64,
    /// Settings of the model.
    pub config: WaitConfig,
}

/// What was said of one row, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitForecastRow {
    /// Position within the rows of the server, from 0.
    pub row: usize,
    /// The forecast.
    pub forecast: WaitForecast,
}

/// Forecasts every row of one server, learning as it goes.
///
/// A row sees the state of the newest row that is at least `age_seconds` older, and the outcomes of the rows whose first
/// token came before it arrived or as it did.
pub fn backtest_waits(rows: &[WaitRow], backtest: &WaitBacktest) -> Vec<WaitForecastRow> {
    let outcomes = in_order_of_first_tokens(rows);
    let mut known = outcomes.iter().peekable();
    let mut model = WaitModel::new(backtest.config);
    let mut tickets = Vec::with_capacity(rows.len());
    let mut said = Vec::with_capacity(rows.len());
    for (row, asked) in rows.iter().enumerate() {
        while let Some((at, index)) = known.next_if(|(at, _)| *at <= asked.at_seconds) {
            // An outcome of a row that has not arrived yet cannot have happened; times may be equal.
            if let Some(ticket) = tickets.get(*index) {
                model.observe(ticket, rows[*index].ttft_seconds, 1.0, *at);
            }
        }
        if model.outcomes_since_fit() >= REFIT_EVERY {
            model.refit();
        }
        let ticket = model.ask(&query(rows, row, backtest));
        said.push(WaitForecastRow { row, forecast: ticket.forecast() });
        tickets.push(ticket);
    }
    said
}

/// The times at which first tokens came, with their rows.
fn in_order_of_first_tokens(rows: &[WaitRow]) -> Vec<(f64, usize)> {
    let mut outcomes: Vec<(f64, usize)> =
        rows.iter().enumerate().map(|(index, row)| (row.at_seconds + row.ttft_seconds, index)).collect();
    outcomes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    outcomes
}

/// The newest row at or before `row` that is at least `age_seconds` older, if there is one.
fn seen(rows: &[WaitRow], row: usize, age_seconds: f64) -> Option<usize> {
    if age_seconds <= 0.0 {
        return Some(row);
    }
    let until = rows[row].at_seconds - age_seconds;
    rows[..=row].partition_point(|seen| seen.at_seconds <= until).checked_sub(1)
}

fn query(rows: &[WaitRow], row: usize, backtest: &WaitBacktest) -> WaitQuery {
    let asked = &rows[row];
    let seen = seen(rows, row, backtest.age_seconds);
    let first = seen.unwrap_or(0);
    let at = seen.map_or(asked.at_seconds - backtest.age_seconds, |seen| rows[seen].at_seconds);
    let state = seen.map_or_else(WaitState::default, |seen| rows[seen].state);
    let before = rows[..first].partition_point(|row| row.at_seconds < at - ARRIVALS_SECONDS);
    let state = WaitState {
        arrived_rps: Some((first - before) as f64 / ARRIVALS_SECONDS),
        age_seconds: asked.at_seconds - at,
        ..state
    };
    match backtest.view {
        WaitView::Router => WaitQuery {
            state,
            now_seconds: asked.at_seconds,
            prompt_tokens: Some(asked.prompt_tokens),
            sent_requests: Some((row - first) as f64),
            sent_prompt_tokens: Some(rows[first..row].iter().map(|row| row.prompt_tokens).sum()),
        },
        WaitView::ControlPlane => WaitQuery {
            state: WaitState { waiting_prompt_tokens: None, ..state },
            now_seconds: asked.at_seconds,
            prompt_tokens: None,
            sent_requests: None,
            sent_prompt_tokens: None,
        },
    }
}
