use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::AnomalyKind;

use super::Verdict;

/// A sign is clear from this score on, where its detector's own threshold is 1,
const CLEAR: f64 = 1.25;
/// and is believed once it has been clear for this long. Until it is below 1 it is not over.
const LASTS: TimeDelta = TimeDelta::seconds(5);
/// A sick backend is well again when nothing was found for this long, all the while it answered.
const CALM: TimeDelta = TimeDelta::seconds(60);
/// So long a gap in its telemetry is none.
const GAP: TimeDelta = TimeDelta::seconds(15);
/// Nothing is held against a backend that has not answered for this long: nothing is known of it any more.
const FORGOTTEN: TimeDelta = TimeDelta::seconds(300);
/// A leak harms nobody before the KV cache is about full, and longer prompts look like one: it counts from this part in use
/// on, and until this one.
const LEAK_HARMS_AT: f64 = 0.8;
const LEAK_HARMS_UNTIL: f64 = 0.5;

/// Scores of what is found of a backend at one moment, as far as they say that it serves worse than its shares are made for;
/// 0 where nothing is found, else 1 to 10.
///
/// What makes it slow is not among them: its speed is in its curve already. Nor is what a surge of demand explains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Signs {
    /// It has requests, and nothing comes out.
    pub silent: f64,
    /// Its KV cache fills up while load does not.
    pub kv_leak: f64,
    /// It computes prompts anew because it started lately.
    pub cold_cache: f64,
}

/// What is seen of a backend at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What is found.
    pub signs: Signs,
    /// Part of the KV cache in use, 0 to 1.
    pub kv_used: Option<f64>,
    /// Whether it answers: its telemetry is fresh.
    pub answers: bool,
    /// Whether it stands still as a whole: neither its telemetry nor its answers come, and others' do.
    pub is_frozen: bool,
    /// For how long it has been up, seconds; none for one that was up before it was known.
    pub up_seconds: Option<f64>,
    /// How long it takes to warm up, seconds.
    pub warm_up_seconds: f64,
}

/// A verdict on one backend, with what is to be remembered until the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Judged {
    sick: Option<Sick>,
    /// Since when a sign of sickness has been clear.
    suspect_since: Option<DateTime<Utc>>,
    /// Since when its cache has clearly been cold, and whether that is believed.
    cold_since: Option<DateTime<Utc>>,
    is_cold: bool,
    warmed: f64,
    answered_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Sick {
    by: AnomalyKind,
    calm_since: Option<DateTime<Utc>>,
}

impl Default for Judged {
    fn default() -> Self {
        Self {
            sick: None,
            suspect_since: None,
            cold_since: None,
            is_cold: false,
            warmed: 1.0,
            answered_at: None,
        }
    }
}

impl Judged {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        if self.sick.is_some() {
            Verdict::Sick
        } else if self.warmed < 1.0 || self.is_cold {
            Verdict::Warming
        } else {
            Verdict::Usual
        }
    }

    /// How far it has warmed up since it started, 0 to 1.
    pub fn warmed(&self) -> f64 {
        self.warmed
    }

    /// What the verdict goes by, where it goes by more than the time since its start.
    pub fn sign(&self) -> Option<AnomalyKind> {
        self.sick.map(|sick| sick.by).or(self.is_cold.then_some(AnomalyKind::ColdCache))
    }

    /// The verdict on what is seen now: once a second.
    #[must_use]
    pub fn next(&self, seen: &Seen, now: DateTime<Utc>) -> Self {
        let warmed = warmed(seen);
        if seen.is_frozen {
            let by = self.sick.map_or(AnomalyKind::Silent, |sick| sick.by);
            return Self { sick: Some(Sick { by, calm_since: None }), warmed, ..self.clone() };
        }
        let Some(before) = self.remembered(seen.answers, now) else {
            return Self { warmed, ..Self::default() };
        };
        if !seen.answers {
            // What was found last is not news, and silence makes nobody well. A gap, though, does not begin anew what lasts.
            let is_brief = before.answered_at.is_some_and(|at| now - at <= GAP);
            let calm_since = |sick: &Sick| sick.calm_since.filter(|_| is_brief);
            let sick = before.sick.map(|sick| Sick { calm_since: calm_since(&sick), ..sick });
            return Self { sick, warmed, ..before };
        }
        let found = harm(seen, before.sick.is_some());
        let suspect_since = since(before.suspect_since, found.is_some_and(|(_, score)| score >= CLEAR), now);
        let sick = match (before.sick, found) {
            (Some(_), Some((by, _))) => Some(Sick { by, calm_since: None }),
            (Some(sick), None) => {
                let calm_since = since(sick.calm_since, true, now);
                (!has_lasted(calm_since, CALM, now)).then_some(Sick { calm_since, ..sick })
            }
            (None, Some((by, _))) if has_lasted(suspect_since, LASTS, now) => {
                Some(Sick { by, calm_since: None })
            }
            (None, _) => None,
        };
        let cold_since = since(before.cold_since, seen.signs.cold_cache >= CLEAR, now);
        let is_cold = seen.signs.cold_cache >= 1.0 && (before.is_cold || has_lasted(cold_since, LASTS, now));
        Self { sick, suspect_since, cold_since, is_cold, warmed, answered_at: Some(now) }
    }

    /// What is still known of it; nothing when it has not answered for long.
    fn remembered(&self, answers: bool, now: DateTime<Utc>) -> Option<Self> {
        let is_known = answers || self.answered_at.is_some_and(|at| now - at <= FORGOTTEN);
        is_known.then(|| self.clone())
    }
}

/// The worst sign that a backend cannot serve, of one that is taken for sick or not.
fn harm(seen: &Seen, is_sick: bool) -> Option<(AnomalyKind, f64)> {
    let full = if is_sick { LEAK_HARMS_UNTIL } else { LEAK_HARMS_AT };
    let leaks = seen.kv_used.is_some_and(|used| used >= full);
    let signs = [
        (AnomalyKind::Silent, seen.signs.silent),
        (AnomalyKind::KvLeak, if leaks { seen.signs.kv_leak } else { 0.0 }),
    ];
    let found = signs.into_iter().filter(|(_, score)| *score >= 1.0);
    // Of two that are equal the first.
    found.rev().max_by(|left, right| left.1.total_cmp(&right.1))
}

fn warmed(seen: &Seen) -> f64 {
    let warm_up = if seen.warm_up_seconds.is_finite() { seen.warm_up_seconds } else { 0.0 };
    match seen.up_seconds {
        Some(up) if up.is_finite() && warm_up > 0.0 => (up / warm_up).clamp(0.0, 1.0),
        _ => 1.0,
    }
}

/// Since when something is so. A clock that was set back begins anew.
fn since(before: Option<DateTime<Utc>>, is_so: bool, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    is_so.then(|| before.filter(|since| *since <= now).unwrap_or(now))
}

fn has_lasted(since: Option<DateTime<Utc>>, span: TimeDelta, now: DateTime<Utc>) -> bool {
    since.is_some_and(|since| now - since >= span)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + second)
    }

    fn seen(signs: Signs) -> Seen {
        Seen {
            signs,
            kv_used: Some(0.9),
            answers: true,
            is_frozen: false,
            up_seconds: None,
            warm_up_seconds: 30.0,
        }
    }

    fn silent(score: f64) -> Seen {
        seen(Signs { silent: score, ..Signs::default() })
    }

    /// The verdict after each second of what is seen for some seconds each.
    fn verdicts(spans: &[(i64, Seen)]) -> Vec<Verdict> {
        let (mut judged, mut second, mut all) = (Judged::default(), 0, Vec::new());
        for (seconds, seen) in spans {
            for _ in 0..*seconds {
                judged = judged.next(seen, at(second));
                all.push(judged.verdict());
                second += 1;
            }
        }
        all
    }

    fn last(spans: &[(i64, Seen)]) -> Verdict {
        *verdicts(spans).last().unwrap()
    }

    #[test]
    fn a_clear_sign_that_lasts_makes_sick_and_a_minute_of_calm_makes_well() {
        let none = seen(Signs::default());
        assert_eq!(last(&[(100, silent(1.2))]), Verdict::Usual, "not clear");
        assert_eq!(last(&[(5, silent(2.0))]), Verdict::Usual, "not for long");
        assert_eq!(last(&[(4, silent(2.0)), (1, none), (4, silent(2.0))]), Verdict::Usual);
        assert_eq!(last(&[(6, silent(2.0))]), Verdict::Sick);
        assert_eq!(last(&[(6, silent(2.0)), (600, silent(1.0))]), Verdict::Sick, "not over");
        assert_eq!(last(&[(6, silent(2.0)), (60, none)]), Verdict::Sick);
        assert_eq!(last(&[(6, silent(2.0)), (61, none)]), Verdict::Usual);
        let again = [(6, silent(2.0)), (50, none), (1, silent(1.0)), (50, none)];
        assert_eq!(last(&again), Verdict::Sick, "calm begins anew");
    }

    #[test]
    fn what_does_not_answer_stays_what_it_was_until_nothing_is_known_of_it() {
        let hangs = Seen { answers: false, ..silent(9.0) };
        assert_eq!(last(&[(100, hangs)]), Verdict::Usual, "old findings are no news");
        let gaps = [(3, silent(2.0)), (2, hangs), (1, silent(2.0))];
        assert_eq!(last(&gaps), Verdict::Sick, "a gap does not begin anew what lasts");
        let calm = Seen { answers: false, ..seen(Signs::default()) };
        assert_eq!(last(&[(6, silent(2.0)), (300, calm)]), Verdict::Sick);
        assert_eq!(last(&[(6, silent(2.0)), (301, calm)]), Verdict::Usual);
    }

    #[test]
    fn what_is_frozen_is_sick_for_as_long_as_it_lasts() {
        let frozen = Seen { answers: false, is_frozen: true, ..seen(Signs::default()) };
        let gone = Seen { is_frozen: false, ..frozen };
        assert_eq!(last(&[(1, frozen)]), Verdict::Sick);
        assert_eq!(last(&[(10, seen(Signs::default())), (1000, frozen)]), Verdict::Sick);
        assert_eq!(last(&[(1000, frozen), (60, seen(Signs::default()))]), Verdict::Sick);
        assert_eq!(last(&[(1000, frozen), (61, seen(Signs::default()))]), Verdict::Usual);
        assert_eq!(last(&[(1000, frozen), (1, gone)]), Verdict::Usual, "Envoys bring its answers again");
    }

    #[test]
    fn a_leak_counts_once_the_cache_is_about_full() {
        let leak = |used| Seen { kv_used: Some(used), ..seen(Signs { kv_leak: 4.0, ..Signs::default() }) };
        assert_eq!(last(&[(600, leak(0.7))]), Verdict::Usual);
        assert_eq!(last(&[(6, leak(0.85))]), Verdict::Sick);
        assert_eq!(last(&[(6, leak(0.85)), (600, leak(0.6))]), Verdict::Sick);
        assert_eq!(last(&[(6, leak(0.85)), (61, leak(0.4))]), Verdict::Usual);
    }

    #[test]
    fn a_newcomer_warms_up_and_one_that_was_known_before_does_not() {
        let up = |up_seconds| Seen { up_seconds, ..seen(Signs::default()) };
        let warmed = |seen: &Seen| Judged::default().next(seen, at(0)).warmed();
        assert_eq!([0.0, 15.0, 30.0, 90.0].map(|age| warmed(&up(Some(age)))), [0.0, 0.5, 1.0, 1.0]);
        assert_eq!(last(&[(1, up(Some(29.0)))]), Verdict::Warming);
        assert_eq!(last(&[(1, up(None))]), Verdict::Usual);
        assert_eq!(last(&[(1, Seen { warm_up_seconds: 0.0, ..up(Some(0.0)) })]), Verdict::Usual);
        let cold = seen(Signs { cold_cache: 1.5, ..Signs::default() });
        assert_eq!(last(&[(5, cold)]), Verdict::Usual);
        assert_eq!(last(&[(6, cold)]), Verdict::Warming);
        assert_eq!(last(&[(6, cold), (1, seen(Signs::default()))]), Verdict::Usual);
    }

    fn rank(verdict: Verdict) -> u8 {
        match verdict {
            Verdict::Usual => 0,
            Verdict::Warming => 1,
            Verdict::Sick => 2,
        }
    }

    proptest! {
        #[test]
        fn worse_signs_never_make_a_better_verdict(
            spans in prop::collection::vec((1i64..80, 0.0..3.0f64, 0.0..2.0f64, any::<bool>()), 1..8)
        ) {
            let seen = |silent, answers| Seen { answers, ..self::silent(silent) };
            let milder: Vec<_> =
                spans.iter().map(|(seconds, silent, _, answers)| (*seconds, seen(*silent, *answers))).collect();
            let worse: Vec<_> = spans
                .iter()
                .map(|(seconds, silent, more, answers)| (*seconds, seen(silent + more, *answers)))
                .collect();
            for (milder, worse) in verdicts(&milder).into_iter().zip(verdicts(&worse)) {
                prop_assert!(rank(worse) >= rank(milder));
            }
        }

        #[test]
        fn what_is_remembered_can_be_written_down(
            scores in prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>(), prop::option::of(any::<f64>())), 1..20)
        ) {
            let mut judged = Judged::default();
            for (second, (silent, kv_leak, cold_cache, up_seconds)) in scores.into_iter().enumerate() {
                let signs = Signs { silent, kv_leak, cold_cache };
                let seen = Seen { up_seconds, warm_up_seconds: silent, ..seen(signs) };
                judged = judged.next(&seen, at(second as i64));
                prop_assert!((0.0..=1.0).contains(&judged.warmed()));
                let text = serde_json::to_string(&judged).unwrap();
                prop_assert_eq!(&serde_json::from_str::<Judged>(&text).unwrap(), &judged);
            }
        }
    }
}
