use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::config::Config;

use super::super::turns;
use super::Core;

/// Evidence is fresh up to this age at least; older is not trusted by the law either.
const FRESH: TimeDelta = TimeDelta::seconds(5);
/// So long telemetry has to be fresh without a break before anything goes by predictions.
const WINDOW: TimeDelta = TimeDelta::seconds(5);
/// Telemetry that comes more seldom does not steer all the time, seconds.
const LONGEST_INTERVAL_SECONDS: f64 = 15.0;
/// After a longer time without a decision Envoys may have gone over to capacity shares by themselves.
const LOST: TimeDelta = TimeDelta::seconds(4);
/// Most that goes over to predictions in a step, in percent of the requests, and the time between two steps.
const STEP_PERCENT: u32 = 10;
const STEP: TimeDelta = TimeDelta::milliseconds(900);

/// How far Envoys may rely on the predictions for one model: all or nothing at once, and back up in small steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::run) struct Reliance {
    /// Percent of the requests that go by predictions.
    pub(in crate::run) percent: u32,
    /// Why predictions steer nothing although they are meant to.
    pub(in crate::run) cause: Option<Cause>,
    /// Since when they steer nothing.
    pub(in crate::run) fell_at: Option<DateTime<Utc>>,
    /// Since when telemetry has been fresh.
    fresh_since: Option<DateTime<Utc>>,
    /// When it was looked at last, and when the percentage last rose.
    at: Option<DateTime<Utc>>,
    rose_at: Option<DateTime<Utc>>,
    /// What an operator was told last; nothing since the start.
    #[serde(default)]
    turn: Option<Turn>,
}

/// Why predictions steer nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::run) enum Cause {
    /// Shares were not evaluated yet.
    NotDecided,
    /// For so many seconds nothing was decided.
    Interrupted(i64),
    /// The telemetry of fewer than half of the backends that take requests is fresh: so many of so many.
    Stale { fresh: usize, serving: usize },
    /// Telemetry is fresh, but has not been for long.
    Settling,
    /// There is no Envoy to rely on anything.
    NoEnvoy,
}

impl std::fmt::Display for Cause {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotDecided => formatter.write_str("no shares have been decided yet"),
            Self::Interrupted(seconds) => write!(formatter, "nothing was decided for {seconds} s"),
            Self::Stale { fresh, serving } => {
                write!(formatter, "the telemetry of {fresh} of {serving} backends is fresh")
            }
            Self::Settling => formatter.write_str("telemetry has been fresh for a few seconds only"),
            Self::NoEnvoy => formatter.write_str("no Envoy is connected"),
        }
    }
}

/// What reliance depends on.
#[derive(Clone, Copy, Debug)]
struct Evidence {
    /// Shares have been evaluated.
    decided: bool,
    /// Backends that take requests, and those of them whose telemetry is fresh.
    serving: usize,
    fresh: usize,
    /// Any Envoy is connected.
    heard: bool,
    /// Percent of the requests that predictions are meant to steer.
    goal: u32,
}

/// What has come of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Turn {
    /// Predictions steer all that they are meant to, for the first time since the start.
    Began,
    /// They steer nothing any more.
    Fell,
    /// They steer it again.
    Recovered,
}

impl Reliance {
    fn look(&mut self, evidence: &Evidence, now: DateTime<Utc>) -> Option<Turn> {
        let before = self.percent;
        // A clock that is set back begins anew.
        for kept in [&mut self.fresh_since, &mut self.rose_at, &mut self.fell_at] {
            *kept = kept.map(|at| at.min(now));
        }
        let gap = self.at.replace(now).map_or(TimeDelta::zero(), |at| now - at);
        self.cause = if gap > LOST {
            Some(Cause::Interrupted(gap.num_seconds()))
        } else if !evidence.decided {
            Some(Cause::NotDecided)
        } else if evidence.serving == 0 || evidence.fresh * 2 < evidence.serving {
            Some(Cause::Stale { fresh: evidence.fresh, serving: evidence.serving })
        } else {
            None
        };
        if self.cause.is_some() {
            self.fresh_since = None;
        } else if now - *self.fresh_since.get_or_insert(now) < WINDOW {
            // What still goes by predictions was never let go.
            self.cause = (self.percent == 0).then_some(Cause::Settling);
        } else if !evidence.heard {
            self.cause = Some(Cause::NoEnvoy);
        }
        self.fell_at = self.cause.and(self.fell_at.or(Some(now)));
        self.percent = match self.cause {
            Some(_) => 0,
            None if before >= evidence.goal => evidence.goal,
            None if self.rose_at.is_some_and(|at| now - at < STEP) => before,
            None => {
                self.rose_at = Some(now);
                evidence.goal.min(before + STEP_PERCENT)
            }
        };
        let is_fault = matches!(self.cause, Some(Cause::Interrupted(_) | Cause::Stale { .. }));
        let steers = evidence.goal > 0 && self.percent == evidence.goal;
        let turn = match self.turn {
            _ if is_fault && before > 0 => Some(Turn::Fell),
            None if steers => Some(Turn::Began),
            Some(Turn::Fell) if steers => Some(Turn::Recovered),
            _ => None,
        };
        self.turn = turn.or(self.turn);
        turn
    }
}

impl Core {
    /// Looks how far Envoys may rely on the predictions for a model; true when that is another part of the requests than
    /// before.
    pub(super) fn rely(&mut self, model: &str, goal: u32, now: DateTime<Utc>) -> bool {
        let limit = oldest(&self.config);
        let Some(steering) = self.steering.get(model) else { return false };
        let members = steering.published.iter().flat_map(|group| &group.members);
        let serving: Vec<_> = members
            .filter(|(_, draining)| !**draining)
            .map(|(address, _)| *address)
            .chain(steering.spare_in_use())
            .collect();
        // Telemetry that comes more seldom is fresh for longer.
        let is_fresh = |address: &&_| {
            let sample = self.fleet.backend(**address).and_then(|backend| backend.sample.as_ref());
            sample.is_some_and(|sample| {
                let limit = limit.max(2.0 * sample.interval_seconds.min(LONGEST_INTERVAL_SECONDS));
                (now - sample.at).as_seconds_f64() <= limit
            })
        };
        let evidence = Evidence {
            decided: steering.latest.is_some(),
            serving: serving.len(),
            fresh: serving.iter().filter(is_fresh).count(),
            heard: !self.connected.is_empty(),
            goal,
        };
        let reliance = self.reliance.entry(model.to_owned()).or_default();
        let before = reliance.percent;
        let turn = reliance.look(&evidence, now);
        let (percent, cause) = (reliance.percent, reliance.cause);
        match (turn, cause) {
            (Some(Turn::Fell), Some(cause)) => {
                self.note("warning", turns::fell(model, cause));
            }
            (Some(Turn::Began), _) => self.note("info", turns::began(model)),
            (Some(Turn::Recovered), _) => self.note("info", turns::recovered(model)),
            _ => {}
        }
        percent != before
    }

    /// Percent of a model's requests that go by predictions at a time: none when what was decided is too long ago, however
    /// it came to be.
    pub(in crate::run) fn relied_on(&self, model: &str, now: DateTime<Utc>) -> u32 {
        let reliance = self.reliance.get(model);
        let is_current = |reliance: &&Reliance| reliance.at.is_some_and(|at| now - at <= LOST);
        reliance.filter(is_current).map_or(0, |reliance| reliance.percent)
    }
}

/// Up to which age evidence is fresh, seconds.
fn oldest(config: &Config) -> f64 {
    FRESH.as_seconds_f64().max(2.0 * config.telemetry.interval.as_seconds())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: Evidence = Evidence { decided: true, serving: 4, fresh: 4, heard: true, goal: 100 };

    fn at(seconds: f64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000, 0).unwrap() + TimeDelta::milliseconds((1000.0 * seconds) as i64)
    }

    /// Looks once a second, and returns the percentages.
    fn looks(reliance: &mut Reliance, evidence: Evidence, seconds: std::ops::Range<i32>) -> Vec<u32> {
        let look = |second| {
            reliance.look(&evidence, at(f64::from(second)));
            reliance.percent
        };
        seconds.map(look).collect()
    }

    #[test]
    fn after_a_window_of_telemetry_it_rises_in_steps_of_a_tenth() {
        let mut reliance = Reliance::default();
        let seen = looks(&mut reliance, GOOD, 0..14);
        assert_eq!(seen, [0, 0, 0, 0, 0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
        assert_eq!(reliance.look(&GOOD, at(14.0)), Some(Turn::Began));
        assert_eq!((reliance.look(&GOOD, at(15.0)), reliance.percent), (None, 100));
        let canary = Evidence { goal: 15, ..GOOD };
        assert_eq!(looks(&mut Reliance::default(), canary, 0..8), [0, 0, 0, 0, 0, 10, 15, 15]);
        let shadow = Evidence { goal: 0, ..GOOD };
        assert_eq!(looks(&mut reliance, shadow, 16..18), [0, 0]);
    }

    #[test]
    fn a_recorded_configuration_trusts_telemetry_for_as_long() {
        let config = crate::config::parse("telemetry: { interval: 5s }\n").unwrap();
        assert_eq!(oldest(&config), 10.0);
        assert_eq!(oldest(&super::super::decisive(&config)), 10.0);
    }

    #[test]
    fn half_of_the_backends_have_to_be_fresh() {
        let mut reliance = Reliance::default();
        looks(&mut reliance, GOOD, 0..15);
        assert_eq!(looks(&mut reliance, Evidence { fresh: 2, ..GOOD }, 15..16), [100]);
        let stale = Evidence { fresh: 1, ..GOOD };
        assert_eq!(reliance.look(&stale, at(16.0)), Some(Turn::Fell));
        assert_eq!(reliance.cause, Some(Cause::Stale { fresh: 1, serving: 4 }));
        assert_eq!((reliance.percent, reliance.look(&stale, at(17.0))), (0, None));
        assert_eq!(looks(&mut reliance, GOOD, 18..24), [0, 0, 0, 0, 0, 10]);
        assert_eq!(looks(&mut reliance, GOOD, 24..32), [20, 30, 40, 50, 60, 70, 80, 90]);
        assert_eq!(reliance.look(&GOOD, at(32.0)), Some(Turn::Recovered));
    }

    #[test]
    fn a_pause_without_decisions_ends_it() {
        let mut reliance = Reliance::default();
        looks(&mut reliance, GOOD, 0..15);
        assert_eq!(reliance.look(&GOOD, at(18.0)), None, "Envoys still have it");
        assert_eq!(reliance.percent, 100);
        assert_eq!(reliance.look(&GOOD, at(30.0)), Some(Turn::Fell));
        assert_eq!((reliance.percent, reliance.cause), (0, Some(Cause::Interrupted(12))));
        assert_eq!(looks(&mut reliance, GOOD, 31..38), [0, 0, 0, 0, 0, 10, 20]);
    }

    #[test]
    fn without_envoys_it_waits_for_them() {
        let mut reliance = Reliance::default();
        let alone = Evidence { heard: false, ..GOOD };
        looks(&mut reliance, alone, 0..20);
        assert_eq!((reliance.percent, reliance.cause), (0, Some(Cause::NoEnvoy)));
        assert_eq!(looks(&mut reliance, GOOD, 20..23), [10, 20, 30], "telemetry was fresh meanwhile");
    }

    proptest! {
        #[test]
        fn whatever_happens_no_second_brings_more_than_a_tenth(
            steps in prop::collection::vec((0.0f64..3.0, 0usize..5, any::<bool>(), 0u32..=100), 1..200),
        ) {
            let (mut reliance, mut now) = (Reliance::default(), 0.0);
            let mut seen: Vec<(f64, u32)> = Vec::new();
            for (pause, fresh, heard, goal) in steps {
                now += pause;
                reliance.look(&Evidence { fresh, heard, goal, ..GOOD }, at(now));
                prop_assert!(reliance.percent <= goal);
                let lowest = seen.iter().filter(|(at, _)| now - at < 0.85).map(|(_, percent)| *percent).min();
                prop_assert!(lowest.is_none_or(|lowest| reliance.percent <= lowest + STEP_PERCENT));
                seen.push((now, reliance.percent));
            }
        }
    }
}
