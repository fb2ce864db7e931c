use serde::{Deserialize, Serialize};

use super::{Iteration, Mix};

/// Answers that are gathered before they count as one observation, and the least of them after the longest time.
const ENOUGH_ANSWERS: f64 = 20.0;
const LEAST_ANSWERS: f64 = 3.0;
const LONGEST_SECONDS: f64 = 10.0;

/// What proxies logged of a backend within an interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoggedInterval {
    /// Its length, seconds.
    pub seconds: f64,
    /// Whole answers.
    pub answers: f64,
    /// The times that these took, together.
    pub answer_seconds: f64,
    /// Answers of which the time to the first byte is known.
    pub first_bytes: f64,
    /// Those times together, seconds.
    pub first_byte_seconds: f64,
    /// Tokens of prompts; 0 where nobody tells.
    pub prompt_tokens: f64,
    /// Tokens of answers; 0 where nobody tells.
    pub output_tokens: f64,
}

/// Gathers what proxies log of a backend whose engine tells nothing of itself, until it tells of a mean iteration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggedAnswers {
    seconds: f64,
    answers: f64,
    answer_seconds: f64,
    first_bytes: f64,
    first_byte_seconds: f64,
    prompt_tokens: f64,
    output_tokens: f64,
}

impl LoggedAnswers {
    /// Takes an interval; returns the mean iteration once enough has been gathered. Where tokens are not told, requests count as
    /// `usual` ones: what is learned then is in those units, as is the capacity for them.
    pub fn observe(&mut self, interval: &LoggedInterval, usual: &Mix) -> Option<Iteration> {
        let counts = [
            interval.seconds,
            interval.answers,
            interval.answer_seconds,
            interval.first_bytes,
            interval.first_byte_seconds,
            interval.prompt_tokens,
            interval.output_tokens,
        ];
        if !counts.iter().all(|count| (0.0..1e12).contains(count)) {
            return None;
        }
        self.seconds += interval.seconds;
        self.answers += interval.answers;
        self.answer_seconds += interval.answer_seconds;
        self.first_bytes += interval.first_bytes;
        self.first_byte_seconds += interval.first_byte_seconds;
        self.prompt_tokens += interval.prompt_tokens;
        self.output_tokens += interval.output_tokens;
        if self.answers < ENOUGH_ANSWERS && self.seconds < LONGEST_SECONDS {
            return None;
        }
        let gathered = std::mem::take(self);
        (gathered.answers >= LEAST_ANSWERS).then(|| gathered.iteration(usual))?
    }

    fn iteration(&self, usual: &Mix) -> Option<Iteration> {
        let mean = |sum: f64, otherwise: f64| if sum > 0.0 { sum / self.answers } else { otherwise };
        let prompt = mean(self.prompt_tokens, usual.prompt_tokens);
        let output = mean(self.output_tokens, usual.output_tokens);
        let first_byte =
            if self.first_bytes > 0.0 { self.first_byte_seconds / self.first_bytes } else { 0.0 };
        let decoding = self.answer_seconds / self.answers - first_byte;
        if output < 2.0 || decoding <= 0.0 {
            return None;
        }
        // Little's law: so many were in flight in the mean.
        let sequences = (self.answer_seconds / self.seconds.max(1e-3)).max(1.0);
        let iteration = Iteration {
            seconds: decoding / (output - 1.0),
            sequences,
            prompt_tokens: prompt * sequences / output,
            resident_tokens: sequences * Mix::of(prompt, output).resident_tokens,
            weight: (self.answers / ENOUGH_ANSWERS).min(1.0),
            interval_seconds: self.seconds,
        };
        iteration.is_usable().then_some(iteration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_answers_tell_of_an_iteration() {
        let mut logged = LoggedAnswers::default();
        // 5 a second of 2 s each, 0.4 s to the first byte, 81 tokens: 10 in flight, 20 ms a token.
        let second = LoggedInterval {
            seconds: 1.0,
            answers: 5.0,
            answer_seconds: 10.0,
            first_bytes: 5.0,
            first_byte_seconds: 2.0,
            prompt_tokens: 500.0,
            output_tokens: 405.0,
        };
        let usual = Mix::default();
        let told: Vec<_> = (0..4).filter_map(|_| logged.observe(&second, &usual)).collect();
        assert_eq!(told.len(), 1);
        assert!((told[0].seconds - 0.02).abs() < 1e-9 && (told[0].sequences - 10.0).abs() < 1e-9);
        assert_eq!(logged, LoggedAnswers::default());
        let untold = LoggedInterval { prompt_tokens: 0.0, output_tokens: 0.0, ..second };
        let told: Vec<_> = (0..4).filter_map(|_| logged.observe(&untold, &usual)).collect();
        assert!((told[0].seconds - 1.6 / 127.0).abs() < 1e-9, "as if of 128 tokens");
        assert_eq!(logged.observe(&LoggedInterval { answers: f64::NAN, ..second }, &usual), None);
        let few = LoggedInterval { seconds: 20.0, answers: 1.0, ..second };
        assert_eq!(logged.observe(&few, &usual), None);
        assert_eq!(logged, LoggedAnswers::default(), "too old to be added to");
    }
}
