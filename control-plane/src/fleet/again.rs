use std::collections::VecDeque;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Nobody who was refused comes again sooner: `shedding.retry_after` is about as long.
const AGAIN: TimeDelta = TimeDelta::seconds(10);
/// So long after the last refusal nobody comes because of it any more.
const OVER: TimeDelta = TimeDelta::seconds(120);
/// Time after which a request counts half in the usual rate, seconds.
const HALF_LIFE_SECONDS: f64 = 30.0;
/// The rate of new ones follows what cannot be anything else over this time, seconds: single ones are chance.
const FOLLOWS_SECONDS: f64 = 10.0;
/// Refused ones of so long are remembered together.
const TOGETHER: TimeDelta = TimeDelta::seconds(1);
/// Summaries are about a second apart, and no farther than this, seconds.
const SECONDS_APART: (f64, f64) = (0.1, 60.0);

/// Tells new batch requests from refused ones that come again: who keeps asking is no growing demand.
///
/// The rate of new ones is taken to be what came until the first refused ones can be back: all that is refused beyond it
/// counts for nothing, as long as there are refused ones that it can be. When more come than these, the rate was too low.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Again {
    /// Requests/s that come while none is refused.
    usual_rps: f64,
    /// When it was told of the last ones.
    at: Option<DateTime<Utc>>,
    /// When the first was refused, and the last.
    refused: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Requests that came before the first can have been back.
    came: f64,
    /// Requests/s that are taken for new from then on, and how many of them have not come yet.
    new_rps: Option<f64>,
    left: f64,
    /// When some were refused, and how many of them have not been taken for some that came again. Oldest first.
    away: VecDeque<(DateTime<Utc>, f64)>,
}

impl Again {
    /// How many of the refused requests are new.
    pub(super) fn new_ones(&mut self, admitted: f64, refused: f64, now: DateTime<Utc>) -> f64 {
        let elapsed = self.at.replace(now).map_or(1.0, |before| (now - before).as_seconds_f64());
        let elapsed = elapsed.clamp(SECONDS_APART.0, SECONDS_APART.1);
        if self.refused.is_some_and(|(first, last)| now < first || now - last > OVER) {
            *self = Self { usual_rps: self.usual_rps, at: self.at, ..Self::default() };
        }
        let offered = admitted + refused;
        if refused > 0.0 {
            let first = self.refused.map_or(now, |(first, _)| first);
            self.refused = Some((first, now));
            self.goes_away(refused, now);
        }
        let Some((first, _)) = self.refused else {
            let part = 1.0 - (-elapsed / HALF_LIFE_SECONDS).exp2();
            self.usual_rps += part * (offered / elapsed - self.usual_rps);
            return 0.0;
        };
        if now - first < AGAIN {
            self.came += offered;
            return refused;
        }
        let new_rps = self.new_rps.unwrap_or_else(|| {
            let seconds = AGAIN.as_seconds_f64();
            // With a standard deviation of chance, as few are counted.
            let came_rps = self.came / seconds + self.came.sqrt() / seconds;
            came_rps.max(self.usual_rps)
        });
        let most = new_rps * AGAIN.as_seconds_f64() + 1.0;
        let expected = self.left + new_rps * elapsed;
        let beyond = (offered - expected).max(0.0);
        let again = self.come_back(beyond, now);
        self.new_rps = Some(new_rps + (beyond - again) / FOLLOWS_SECONDS);
        let new = (refused - again).clamp(0.0, refused);
        self.left = (expected - admitted - new).clamp(0.0, most);
        new
    }

    fn goes_away(&mut self, refused: f64, now: DateTime<Utc>) {
        match self.away.back_mut() {
            Some((at, count)) if now - *at < TOGETHER => *count += refused,
            _ => self.away.push_back((now, refused)),
        }
        while self.away.front().is_some_and(|(at, _)| now - *at > OVER) {
            self.away.pop_front();
        }
    }

    /// Takes so many for ones that were refused before; returns how many of them that can be.
    fn come_back(&mut self, beyond: f64, now: DateTime<Utc>) -> f64 {
        let mut left = beyond;
        while let Some((at, count)) = self.away.front_mut()
            && left > 0.0
            && now - *at >= AGAIN
        {
            let part = count.min(left);
            left -= part;
            *count -= part;
            if *count <= 0.0 {
                self.away.pop_front();
            }
        }
        beyond - left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: usize) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + second as i64)
    }

    /// Seconds in which `new` requests come, and with them those that were refused ten seconds ago. Returns what was counted
    /// in the mean of the last minute.
    fn counted(new: &[f64], refused_part: impl Fn(usize) -> f64, comes_again: bool) -> f64 {
        let (mut again, mut refused) = (Again::default(), VecDeque::from([0.0; 10]));
        let mut counted = Vec::new();
        for (second, new) in new.iter().enumerate() {
            let old = refused.pop_front().filter(|_| comes_again).unwrap_or(0.0);
            let part = refused_part(second);
            refused.push_back((new + old) * part);
            let admitted = (new + old) * (1.0 - part);
            counted.push(admitted + again.new_ones(admitted, (new + old) * part, at(second)));
        }
        counted[counted.len() - 60..].iter().sum::<f64>() / 60.0
    }

    #[test]
    fn who_comes_again_is_not_counted_twice_and_who_comes_anew_is() {
        let overload = |second: usize| if second < 100 { 0.0 } else { 0.8 };
        let demand = counted(&[5.0; 400], overload, false);
        assert!((demand - 5.0).abs() < 0.2, "{demand}");
        // Five times as many ask as are new.
        let demand = counted(&[5.0; 400], overload, true);
        assert!((5.0..6.0).contains(&demand), "{demand}");
        // A surge that is refused as it begins.
        let surge: Vec<f64> = (0..400).map(|second| if second < 98 { 1.0 } else { 20.0 }).collect();
        let demand = counted(&surge, overload, true);
        assert!((19.0..23.0).contains(&demand), "{demand}");
        let seldom: Vec<f64> = (0..400).map(|second| f64::from(u8::from(second % 20 == 3))).collect();
        let demand = counted(&seldom, overload, false);
        assert!((0.02..0.06).contains(&demand), "{demand}");
    }

    #[test]
    fn demand_that_grows_while_some_is_refused_is_seen() {
        // Twenty requests/s are let in, whoever they are; within a minute and a half five new ones/s become a hundred.
        let grown = |comes_again: bool, seconds: usize| {
            let (mut again, mut away) = (Again::default(), VecDeque::from([0.0; 15]));
            let counted = (0..seconds).map(|second| {
                let new = (second as f64 - 95.0).clamp(5.0, 100.0);
                let offered = new + away.pop_front().filter(|_| comes_again).unwrap_or(0.0);
                let admitted = offered.min(20.0);
                away.push_back(offered - admitted);
                admitted + again.new_ones(admitted, offered - admitted, at(second))
            });
            counted.skip(seconds - 20).sum::<f64>() / 20.0
        };
        let demand = grown(true, 300);
        assert!((65.0..110.0).contains(&demand), "{demand}");
        let demand = grown(false, 300);
        assert!((25.0..=100.5).contains(&demand), "who does not come again may have: {demand}");
        assert!((4.9..5.1).contains(&grown(true, 90)));
    }

    #[test]
    fn who_comes_again_late_and_all_at_once_is_no_new_demand() {
        // All that is refused in a minute comes again at the begin of the next but one.
        let (mut again, mut counted, mut back) = (Again::default(), 0.0, [0.0; 3]);
        for second in 0..900_usize {
            let first = if second.is_multiple_of(60) {
                back.rotate_left(1);
                std::mem::take(&mut back[2])
            } else {
                0.0
            };
            let offered = 5.0 + first;
            let refused = if second < 100 { 0.0 } else { 0.5 * offered };
            back[1] += refused;
            let new = again.new_ones(offered - refused, refused, at(second));
            counted += if second >= 600 { offered - refused + new } else { 0.0 };
        }
        assert!((4.9..8.0).contains(&(counted / 300.0)), "{counted}");
    }

    #[test]
    fn what_comes_after_it_is_over_counts_anew() {
        let mut again = Again::default();
        for second in 0..60 {
            again.new_ones(0.0, 1.0, at(second));
        }
        for second in 60..300 {
            again.new_ones(1.0, 0.0, at(second));
        }
        assert_eq!(again.new_ones(0.0, 50.0, at(300)), 50.0);
        assert_eq!(again.new_ones(0.0, 50.0, at(10)), 50.0, "a clock that is set back begins anew");
    }
}
