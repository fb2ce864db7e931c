use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{ShedInput, ShedLaw, unit};

/// Least part that has to have been refused for the refused to tell how many were offered.
const LEAST_TELLING: f64 = 0.1;
/// Least part that is let in for the admitted to tell how many were offered.
const LEAST_PASSING: f64 = 0.04;
/// Evaluations that are remembered.
const MOST_RECENT: usize = 100;

/// Requests/s that were refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    /// Of the lane `batch`.
    pub batch_rps: f64,
    /// Of the lane `interactive`.
    pub interactive_rps: f64,
}

/// A forecast of demand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ahead {
    /// Its median, requests/s.
    pub rps: f64,
    /// How far ahead, seconds.
    pub seconds: f64,
}

/// Parts of the lanes that Envoys were told to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct InForce {
    /// Until when, at least.
    pub at: DateTime<Utc>,
    /// Of the lane `batch`, 0 to 1.
    pub batch: f64,
    /// Of the lane `interactive`, 0 to 1.
    pub interactive: f64,
}

/// Adds what has been in force since the last evaluation, and forgets what was before the time in which requests are counted.
pub(super) fn remember(recent: &mut Vec<InForce>, new: InForce, now: DateTime<Utc>, law: &ShedLaw) {
    let begin = now - seconds(law.window_seconds + law.lag_seconds);
    recent.push(InForce { at: now, batch: unit(new.batch), interactive: unit(new.interactive) });
    recent.retain(|one| one.at >= begin && one.at <= now);
    let surplus = recent.len().saturating_sub(MOST_RECENT);
    recent.drain(..surplus);
}

fn seconds(seconds: f64) -> TimeDelta {
    TimeDelta::milliseconds((1000.0 * seconds) as i64)
}

/// Mean parts of the lanes that were refused while requests were counted: what came within the lag is not counted yet.
fn means(recent: &[InForce], law: &ShedLaw) -> (f64, f64) {
    let Some(end) = recent.last().map(|newest| newest.at - seconds(law.lag_seconds)) else {
        return (0.0, 0.0);
    };
    let counted = || recent.iter().filter(|one| one.at <= end);
    let count = counted().count().max(1) as f64;
    let mean = |of: fn(&InForce) -> f64| counted().map(of).sum::<f64>() / count;
    (mean(|one| one.batch), mean(|one| one.interactive))
}

/// Whether so much was refused that the refused tell how many were offered.
pub(super) fn tells(recent: &[InForce], law: &ShedLaw) -> bool {
    means(recent, law).0 >= LEAST_TELLING
}

/// Requests/s that were offered, and those of them that are batch; none while the lanes are unknown.
pub(super) fn offered(input: &ShedInput, recent: &[InForce], law: &ShedLaw) -> Option<(f64, f64)> {
    let rate = |rps: f64| if rps.is_finite() { rps.clamp(0.0, 1e9) } else { 0.0 };
    let part = input.batch_part.filter(|part| part.is_finite()).map(|part| part.clamp(0.0, 1.0))?;
    let (batch, interactive) = means(recent, law);
    let admitted = rate(input.admitted_rps);
    let Some(refused) = input.refused else {
        let passing = 1.0 - part * batch - (1.0 - part) * interactive;
        let all = admitted / passing.max(LEAST_PASSING);
        return Some((all, part * all));
    };
    let (refused_batch, refused_interactive) = (rate(refused.batch_rps), rate(refused.interactive_rps));
    let all = admitted + refused_batch + refused_interactive;
    // Requests are logged when they end, or some seconds after they began, refused ones at once: these tell the sooner how many
    // come.
    let of_batch = if tells(recent, law) { refused_batch / batch } else { part * all };
    Some((all, of_batch.clamp(refused_batch.min(all), all)))
}
