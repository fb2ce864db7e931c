use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use clairvoy_forecaster::{Anomaly, AnomalyKind, Verdict};

/// How long a finding has to last before it is told of, seconds. By itself it is no false alarm in a thousand, but a
/// comparison at the edge of its threshold comes and goes.
const LASTS_SECONDS: f64 = 10.0;
/// The same where first tokens are late and nothing else is found. Bursts that no wait model foresees look the same, on
/// simulated servers once in two to three hours. A burst of a minute or two is forgotten some 80 s after its end, when the
/// sum that finds it, which is bounded, is below its threshold again. A backend that is slow by a fault of its own is
/// slower than its peers too, and told of by that long before.
const LASTS_ALONE_SECONDS: f64 = 300.0;
/// How long nothing may be found of a kind before it counts as over, seconds.
const QUIET_SECONDS: f64 = 30.0;

/// What was found wrong with one backend for long enough to tell, and not for so short that it may come back at once.
#[derive(Default)]
pub(super) struct Alarm {
    found: BTreeMap<AnomalyKind, Found>,
}

struct Found {
    anomaly: Anomaly,
    since: DateTime<Utc>,
    last: DateTime<Utc>,
    raised: bool,
}

impl Alarm {
    /// Takes the judgement of this moment.
    pub(super) fn judge(&mut self, verdict: &Verdict, now: DateTime<Utc>) {
        for anomaly in &verdict.anomalies {
            let fresh = || Found { anomaly: anomaly.clone(), since: now, last: now, raised: false };
            let found = self.found.entry(anomaly.kind).or_insert_with(fresh);
            found.anomaly = anomaly.clone();
            found.last = now;
        }
        self.found.retain(|_, found| if found.raised { !found.is_over(now) } else { found.last == now });
        let others = verdict.anomalies.len() > 1;
        for (kind, found) in &mut self.found {
            let lasts = match kind {
                AnomalyKind::GettingSlower if !others => LASTS_ALONE_SECONDS,
                _ => LASTS_SECONDS,
            };
            found.raised |= (now - found.since).as_seconds_f64() >= lasts;
        }
    }

    /// What is wrong, worst first.
    pub(super) fn raised(&self) -> Vec<Anomaly> {
        let mut raised: Vec<Anomaly> =
            self.found.values().filter(|found| found.raised).map(|found| found.anomaly.clone()).collect();
        raised.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.kind.cmp(&b.kind)));
        raised
    }
}

impl Found {
    fn is_over(&self, now: DateTime<Utc>) -> bool {
        (now - self.last).as_seconds_f64() >= QUIET_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kinds: &[AnomalyKind]) -> Verdict {
        let anomaly =
            |kind: &AnomalyKind| Anomaly { kind: *kind, score: 2.0, reason: kind.name().to_owned() };
        Verdict { score: 2.0, anomalies: kinds.iter().map(anomaly).collect() }
    }

    /// Judges once a second: each entry is for how long what is found.
    fn raised_after(spans: &[(i64, &[AnomalyKind])]) -> Vec<AnomalyKind> {
        let (mut alarm, mut second) = (Alarm::default(), 1_700_000_000);
        for (seconds, kinds) in spans {
            for _ in 0..*seconds {
                alarm.judge(&verdict(kinds), DateTime::from_timestamp(second, 0).unwrap());
                second += 1;
            }
        }
        alarm.raised().into_iter().map(|anomaly| anomaly.kind).collect()
    }

    #[test]
    fn what_lasts_is_told_and_what_comes_and_goes_is_not() {
        const SLOW: &[AnomalyKind] = &[AnomalyKind::SlowerThanPeers];
        assert_eq!(raised_after(&[(10, SLOW)]), []);
        assert_eq!(raised_after(&[(11, SLOW)]), SLOW);
        assert_eq!(raised_after(&[(6, SLOW), (1, &[]), (6, SLOW)]), []);
        assert_eq!(raised_after(&[(11, SLOW), (20, &[]), (1, SLOW), (20, &[])]), SLOW);
        assert_eq!(raised_after(&[(11, SLOW), (30, &[])]), []);
    }

    #[test]
    fn late_first_tokens_alone_have_to_last_for_longer() {
        const LATE: &[AnomalyKind] = &[AnomalyKind::GettingSlower];
        const BOTH: &[AnomalyKind] = &[AnomalyKind::SlowerThanPeers, AnomalyKind::GettingSlower];
        assert_eq!(raised_after(&[(200, LATE), (1, &[]), (200, LATE)]), []);
        assert_eq!(raised_after(&[(301, LATE)]), LATE);
        assert_eq!(raised_after(&[(60, LATE), (11, BOTH)]), BOTH);
    }
}
