use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::decide::Mix;
use crate::telemetry::Sample;

use super::Fleet;

/// Time over which requests are counted, seconds of traffic.
const WINDOW_SECONDS: f64 = 30.0;
/// Requests for which the default mix counts.
const DEFAULT_WEIGHT: f64 = 0.5;

/// Requests and tokens of the last 30 seconds in which there were any: older ones count for less and less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Traffic {
    /// Whether first tokens were ever counted; else requests count when they end.
    tells_first_tokens: bool,
    prompts: f64,
    prompt_tokens: f64,
    ends: f64,
    output_tokens: f64,
    /// Sequences that ran, and tokens that they had in the cache, where that is told; summed over seconds.
    running: f64,
    resident_tokens: f64,
    /// When there last was any.
    at: Option<DateTime<Utc>>,
}

impl Traffic {
    /// Takes a sample, and the tokens that are in the cache, where that is known.
    pub(super) fn observe(&mut self, sample: &Sample, resident_tokens: Option<f64>) {
        // Prompts are counted about when their first token comes.
        self.tells_first_tokens |= sample.ttft_count > 0.0;
        let prompts = if self.tells_first_tokens { sample.ttft_count } else { sample.completed };
        let counted = [prompts, sample.prompt_tokens, sample.completed, sample.output_tokens];
        self.count(counted, sample.interval_seconds, sample.at);
        if let (Some(running), Some(resident)) =
            (sample.running.filter(|running| *running >= 1.0), resident_tokens)
            && sample.interval_seconds > 0.0
            && running.is_finite()
            && resident.is_finite()
        {
            let seconds = sample.interval_seconds.min(WINDOW_SECONDS);
            self.running += seconds * running;
            self.resident_tokens += seconds * resident;
        }
    }

    /// Takes prompts, their tokens, ends of requests and output tokens of an interval.
    pub(super) fn count(&mut self, counted: [f64; 4], seconds: f64, at: DateTime<Utc>) {
        let is_usable = counted.iter().all(|count| (0.0..1e12).contains(count)) && seconds > 0.0;
        if !is_usable || !seconds.is_finite() || counted == [0.0; 4] {
            return;
        }
        self.scale((-seconds / WINDOW_SECONDS).exp());
        let [prompts, prompt_tokens, ends, output_tokens] = counted;
        self.prompts += prompts;
        self.prompt_tokens += prompt_tokens;
        self.ends += ends;
        self.output_tokens += output_tokens;
        self.at = Some(at);
    }

    /// Whether it was ever told of tokens.
    pub(super) fn tells_tokens(&self) -> bool {
        self.output_tokens > 0.0
    }

    fn scale(&mut self, part: f64) {
        self.sums().into_iter().for_each(|sum| *sum *= part);
    }

    fn sums(&mut self) -> [&mut f64; 6] {
        [
            &mut self.prompts,
            &mut self.prompt_tokens,
            &mut self.ends,
            &mut self.output_tokens,
            &mut self.running,
            &mut self.resident_tokens,
        ]
    }

    fn add(&mut self, mut other: Self) {
        self.sums().into_iter().zip(other.sums()).for_each(|(sum, more)| *sum += *more);
    }

    /// What its requests are like. Of what is unknown, the default.
    pub(super) fn mix(&self) -> Mix {
        let usual = Mix::default();
        let mean = |sum: f64, count: f64, usual: f64| {
            let mean = (sum + DEFAULT_WEIGHT * usual) / (count + DEFAULT_WEIGHT);
            if sum > 0.0 && count > 0.0 && mean.is_finite() { mean } else { usual }
        };
        let prompt_tokens = mean(self.prompt_tokens, self.prompts, usual.prompt_tokens);
        let output_tokens = mean(self.output_tokens, self.ends, usual.output_tokens).max(1.0);
        let told = self.resident_tokens / self.running;
        let mix = Mix::of(prompt_tokens, output_tokens);
        if self.running > 0.0 && told >= 1.0 && told.is_finite() {
            Mix { resident_tokens: told, ..mix }
        } else {
            mix
        }
    }
}

impl Fleet {
    /// What the requests of a model are like, in the mean over the last 30 seconds in which there were any.
    pub fn mix(&self, model: &str, now: DateTime<Utc>) -> Mix {
        let age = |at: DateTime<Utc>| (now - at).as_seconds_f64().max(0.0);
        let told =
            || self.of_model(model).filter_map(|backend| Some((age(backend.traffic.at?), backend.traffic)));
        let newest = told().map(|(age, _)| age).min_by(f64::total_cmp).unwrap_or(0.0);
        let mut all = Traffic::default();
        for (age, mut traffic) in told() {
            // One that takes no requests any more tells less and less, but while none does, the last ones do.
            traffic.scale((-(age - newest) / WINDOW_SECONDS).exp());
            all.add(traffic);
        }
        all.mix()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    fn second(number: i64, prompt: f64, output: f64) -> Sample {
        Sample {
            at: at(number),
            interval_seconds: 1.0,
            ttft_count: 2.0,
            prompt_tokens: 2.0 * prompt,
            completed: 2.0,
            output_tokens: 2.0 * output,
            running: Some(4.0),
            ..Sample::default()
        }
    }

    #[test]
    fn the_mix_follows_and_stays_while_nothing_comes() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.mix(), Mix::default());
        (0..60).for_each(|number| traffic.observe(&second(number, 1000.0, 200.0), None));
        let mix = traffic.mix();
        assert!(
            (mix.prompt_tokens - 1000.0).abs() < 10.0 && (mix.output_tokens - 200.0).abs() < 2.0,
            "{mix:?}"
        );
        assert!((mix.resident_tokens - 1100.0).abs() < 15.0, "{mix:?}");
        let idle = Sample { at: at(61), interval_seconds: 1.0, running: Some(0.0), ..Sample::default() };
        (0..1000).for_each(|_| traffic.observe(&idle, Some(0.0)));
        assert_eq!(traffic.mix(), mix);
        (100..190).for_each(|number| traffic.observe(&second(number, 100.0, 20.0), Some(6000.0)));
        let mix = traffic.mix();
        assert!((100.0..160.0).contains(&mix.prompt_tokens), "{mix:?}");
        assert!((mix.resident_tokens - 1500.0).abs() < 1.0, "told: {mix:?}");
    }

    #[test]
    fn rubbish_changes_nothing() {
        let mut traffic = Traffic::default();
        for value in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            traffic.observe(&Sample { prompt_tokens: value, ..second(1, 10.0, 10.0) }, Some(value));
            traffic.observe(&Sample { interval_seconds: value, ..second(1, 0.0, 0.0) }, Some(value));
        }
        let mix = traffic.mix();
        assert!(mix.prompt_tokens.is_finite() && mix.output_tokens >= 1.0 && mix.resident_tokens.is_finite());
    }
}
