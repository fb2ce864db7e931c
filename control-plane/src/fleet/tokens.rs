use std::collections::VecDeque;

use chrono::{DateTime, Utc};

use crate::envoy::Tokens;

/// Time over which rates are taken, seconds.
const WINDOW_SECONDS: i64 = 10;

/// Tokens of one model, as access logs told them at the ends of requests. They are shown; nothing is decided on them.
#[derive(Clone, Debug, Default)]
pub(super) struct LoggedTokens {
    seconds: VecDeque<(i64, Tokens)>,
}

impl LoggedTokens {
    /// Takes what was told in the time up to `now`, which is a second or few.
    pub(super) fn observe(&mut self, tokens: Tokens, now: DateTime<Utc>) {
        let second = now.timestamp();
        self.seconds.retain(|(before, _)| (second - WINDOW_SECONDS..=second).contains(before));
        match self.seconds.back_mut().filter(|last| last.0 == second) {
            Some((_, sum)) => sum.add(tokens),
            None => self.seconds.push_back((second, tokens)),
        }
    }

    /// Tokens/s over the ten seconds before; none when none were told.
    pub(super) fn rates(&self, now: DateTime<Utc>) -> Option<Tokens> {
        let end = now.timestamp();
        let recent =
            self.seconds.iter().filter(|(second, _)| (end - WINDOW_SECONDS + 1..=end).contains(second));
        let mut sum = Tokens::default();
        recent.for_each(|(_, tokens)| sum.add(*tokens));
        let per_second = |count: f64| count / WINDOW_SECONDS as f64;
        (sum != Tokens::default())
            .then(|| Tokens { prompt: per_second(sum.prompt), output: per_second(sum.output) })
    }
}
