use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::Mix;
use crate::telemetry::{Limits, Sample};

/// Time over which means are taken, seconds: what is older counts e times less with each.
const WINDOW_SECONDS: f64 = 30.0;
/// Requests that have to have ended for their means to count.
const LEAST_REQUESTS: f64 = 5.0;

/// What requests of a model are like, from the counters of its servers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct RequestMix {
    at: Option<DateTime<Utc>>,
    completed: f64,
    prompt_tokens: f64,
    output_tokens: f64,
    running: f64,
    resident_tokens: f64,
    /// The newest means; they stay while nothing ends.
    known: Option<Mix>,
}

impl RequestMix {
    /// Takes a sample of a server with these limits.
    pub(super) fn observe(&mut self, sample: &Sample, limits: &Limits) {
        let elapsed = self.at.map_or(0.0, |before| (sample.at - before).as_seconds_f64().max(0.0));
        self.at = Some(self.at.map_or(sample.at, |before| before.max(sample.at)));
        let kept = (-elapsed / WINDOW_SECONDS).exp();
        let count = |value: f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
        let add = |sum: &mut f64, value: f64| *sum = *sum * kept + count(value);
        add(&mut self.completed, sample.completed);
        add(&mut self.prompt_tokens, sample.prompt_tokens);
        add(&mut self.output_tokens, sample.output_tokens);
        let blocks = limits.blocks.zip(limits.block_size).map(|(blocks, size)| blocks.value * size.value);
        let (running, resident) = match (sample.running, sample.kv_used, blocks) {
            (Some(running), Some(used), Some(tokens)) if running > 0.0 => (running, used * tokens),
            _ => (0.0, 0.0),
        };
        add(&mut self.running, running);
        add(&mut self.resident_tokens, resident);
        if self.completed >= LEAST_REQUESTS && self.output_tokens > 0.0 {
            let mix = Mix::of(self.prompt_tokens / self.completed, self.output_tokens / self.completed);
            let told = self.resident_tokens / self.running;
            let is_told = self.running >= 1.0 && self.resident_tokens > 0.0;
            self.known = Some(if is_told { Mix { resident_tokens: told, ..mix } } else { mix });
        }
    }

    /// The newest means; those of a conversation before any are known.
    pub(super) fn mix(&self) -> Mix {
        self.known.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use crate::telemetry::{Limit, LimitSource};

    use super::*;

    fn sample(second: i64, completed: f64, prompt_tokens: f64, output_tokens: f64) -> Sample {
        let at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(second);
        let gauges = Sample { running: Some(4.0), kv_used: Some(0.25), ..Sample::default() };
        Sample { at, completed, prompt_tokens, output_tokens, ..gauges }
    }

    #[test]
    fn it_is_that_of_the_last_half_minute_and_stays_while_nothing_ends() {
        let limit = |value| Some(Limit { value, source: LimitSource::Exported });
        let limits = Limits { blocks: limit(1000.0), block_size: limit(16.0), ..Limits::default() };
        let mut mix = RequestMix::default();
        mix.observe(&sample(0, 2.0, 200.0, 100.0), &limits);
        assert_eq!(mix.mix(), Mix::default(), "too few");
        for second in 1..20 {
            mix.observe(&sample(second, 2.0, 200.0, 100.0), &limits);
        }
        let near = |left: f64, right: f64| (left - right).abs() < 0.02 * right;
        let known = mix.mix();
        assert!(near(known.prompt_tokens, 100.0) && near(known.output_tokens, 50.0), "{known:?}");
        assert!(near(known.resident_tokens, 1000.0), "a quarter of 16,000 by four: {known:?}");
        for second in 20..200 {
            mix.observe(&sample(second, 1.0, 4000.0, 10.0), &limits);
        }
        let changed = mix.mix();
        assert!(near(changed.prompt_tokens, 4000.0) && near(changed.output_tokens, 10.0), "{changed:?}");
        for second in [201, 10_000, 1_000_000] {
            mix.observe(&sample(second, 0.0, 0.0, 0.0), &limits);
        }
        assert!(near(mix.mix().prompt_tokens, 4000.0), "{:?}", mix.mix());
    }

    #[test]
    fn rubbish_changes_nothing() {
        let mut mix = RequestMix::default();
        for value in [f64::NAN, f64::INFINITY, -1.0] {
            mix.observe(&sample(1, value, value, value), &Limits::default());
        }
        assert_eq!(mix.mix(), Mix::default());
    }
}
