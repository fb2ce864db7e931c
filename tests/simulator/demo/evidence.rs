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
    /// Demand of the last whole step when it was forecast.
    pub(super) last_seen_rps: f64,
    pub(super) q50_rps: f64,
    pub(super) q90_rps: f64,
    /// The demand that came.
    pub(super) actual_rps: f64,
}

impl Row {
    /// True when demand rose from the last step known at the time of issue, and the forecast foresaw
    /// half of the rise or more.
    pub(super) fn foresaw_a_rise(&self) -> bool {
        let rise = self.actual_rps - self.last_seen_rps;
        self.actual_rps >= RISE * self.last_seen_rps
            && self.q50_rps >= RISE * self.last_seen_rps
            && self.q50_rps - self.last_seen_rps >= 0.5 * rise
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
                step_at: issued.t - begin_unix_s,
                issued_at: issued.issued_at - begin_unix_s,
                last_seen_rps: actual_at((whole_steps - 1.0) * demand.step_seconds)?,
                q50_rps: issued.q50,
                q90_rps: issued.q90,
                actual_rps: actual_at(issued.t)?,
            })
        })
        .collect();
    rows.sort_by(|a, b| a.step_at.total_cmp(&b.step_at));
    rows
}

/// The step whose rise was foreseen most clearly, if any was.
pub(super) fn best_rise(rows: &[Row]) -> Option<Row> {
    let rise = |row: &Row| row.actual_rps / row.last_seen_rps.max(f64::MIN_POSITIVE);
    let foreseen = rows.iter().filter(|row| row.foresaw_a_rise());
    foreseen.max_by(|a, b| rise(a).total_cmp(&rise(b))).copied()
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
        assert_eq!((rows[0].last_seen_rps, rows[0].actual_rps, rows[0].step_at), (10.0, 14.0, 15.0));
        assert_eq!(best_rise(&rows), Some(rows[0]));
    }

    #[test]
    fn a_forecast_that_follows_the_demand_foresees_nothing() {
        let demand = demand(&[(90.0, 10.0), (100.0, 11.0), (110.0, 14.0)], &[(110.0, 100.0, 10.4)]);
        assert_eq!(best_rise(&rows(&demand, 95.0)), None);
    }
}
