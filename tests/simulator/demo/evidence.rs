//! What the forecasts said beside what came, and whether a rise was seen before it happened.

use super::api::Demand;

/// Smallest rise within the lead that counts as one, relative to the demand when the forecast was issued.
const RISE: f64 = 1.05;

/// A step with the forecast that was issued for it beforehand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    /// Start of the step, seconds from the first request.
    pub(super) step_at: f64,
    /// When it was forecast, seconds from the first request.
    pub(super) issued_at: f64,
    /// Demand of the last whole step when it was forecast, if it was measured.
    pub(super) last_seen_rps: Option<f64>,
    pub(super) q50_rps: f64,
    pub(super) q90_rps: f64,
    /// The demand that came.
    pub(super) actual_rps: f64,
}

impl Row {
    /// The demand before the rise, when demand rose from the last step known at the time of issue, and the
    /// forecast foresaw half of the rise or more. Only forecasts issued while requests came count.
    fn foreseen_rise_from(&self) -> Option<f64> {
        let seen = self.last_seen_rps.filter(|seen| *seen > 0.0 && self.issued_at >= 0.0)?;
        let foreseen = self.actual_rps >= RISE * seen
            && self.q50_rps >= RISE * seen
            && self.q50_rps - seen >= 0.5 * (self.actual_rps - seen);
        foreseen.then_some(seen)
    }
}

/// Joins forecasts and demand for the steps that began after `begin_unix_s`, oldest first. Steps without a
/// forecast, or not over yet, are left out.
pub(super) fn rows(demand: &Demand, begin_unix_s: f64) -> Vec<Row> {
    let actual_at = |t: f64| {
        let half = demand.step_seconds / 2.0;
        demand.actual.iter().find(|actual| (actual.t - t).abs() < half).map(|actual| actual.rps)
    };
    let mut rows: Vec<Row> = demand
        .issued
        .iter()
        .filter(|issued| issued.t >= begin_unix_s && issued.issued_at < issued.t)
        .filter_map(|issued| {
            let whole_steps = (issued.issued_at / demand.step_seconds).floor();
            Some(Row {
                step_at: whole(issued.t - begin_unix_s),
                issued_at: whole(issued.issued_at - begin_unix_s),
                last_seen_rps: actual_at((whole_steps - 1.0) * demand.step_seconds),
                q50_rps: issued.q50,
                q90_rps: issued.q90,
                actual_rps: actual_at(issued.t)?,
            })
        })
        .collect();
    rows.sort_by(|a, b| a.step_at.total_cmp(&b.step_at));
    rows
}

/// Rounded for show, and never a negative zero.
fn whole(seconds: f64) -> f64 {
    seconds.round() + 0.0
}

/// The step whose rise was foreseen most clearly, if any was, with the demand before the rise.
pub(super) fn best_rise(rows: &[Row]) -> Option<(Row, f64)> {
    let foreseen = rows.iter().filter_map(|row| Some((*row, row.foreseen_rise_from()?)));
    foreseen.max_by(|(a, a_from), (b, b_from)| (a.actual_rps / a_from).total_cmp(&(b.actual_rps / b_from)))
}

#[cfg(test)]
mod tests {
    use super::super::api::{Actual, Issued};
    use super::*;

    fn demand(actual: &[(f64, f64)], issued: &[(f64, f64, f64)]) -> Demand {
        Demand {
            model: "m".to_owned(),
            step_seconds: 10.0,
            lead_seconds: 10.0,
            actual: actual.iter().map(|(t, rps)| Actual { t: *t, rps: *rps }).collect(),
            issued: issued
                .iter()
                .map(|(t, issued_at, q50)| Issued { t: *t, issued_at: *issued_at, q50: *q50, q90: q50 * 1.2 })
                .collect(),
        }
    }

    #[test]
    fn forecasts_meet_the_demand_that_came() {
        let demand = demand(
            &[(80.0, 9.0), (90.0, 10.0), (100.0, 11.0), (110.0, 14.0)],
            &[(110.0, 100.0, 13.0), (120.0, 110.0, 15.0), (70.0, 60.0, 9.0)],
        );
        let rows = rows(&demand, 95.0);
        assert_eq!(rows.len(), 1, "a step before the start, and one without demand yet, are left out");
        assert_eq!((rows[0].last_seen_rps, rows[0].actual_rps, rows[0].step_at), (Some(10.0), 14.0, 15.0));
        assert_eq!(best_rise(&rows), Some((rows[0], 10.0)));
    }

    #[test]
    fn a_rise_from_an_unknown_step_counts_for_nothing() {
        let demand = demand(&[(100.0, 11.0), (110.0, 14.0)], &[(110.0, 100.0, 13.0)]);
        let rows = rows(&demand, 95.0);
        assert_eq!((rows.len(), rows[0].last_seen_rps, best_rise(&rows)), (1, None, None));
    }

    #[test]
    fn a_forecast_that_follows_the_demand_foresees_nothing() {
        let demand = demand(&[(90.0, 10.0), (100.0, 11.0), (110.0, 14.0)], &[(110.0, 100.0, 10.4)]);
        assert_eq!(best_rise(&rows(&demand, 95.0)), None);
    }
}
