use serde::{Deserialize, Serialize};

/// Tokens in an interval that make its mean time count fully; fewer tell less.
const FULL_WEIGHT_TOKENS: f64 = 25.0;
/// Steps and times between tokens that tell the same within this ratio show an engine that was busy throughout.
const AGREEMENT: f64 = 1.25;
/// Steps that seem so much shorter than the time between tokens are those of several engines.
const SEVERAL_ENGINES: f64 = 0.6;
/// Requests at both ends of an interval in which an engine was busy throughout; and where times between tokens say otherwise.
const BUSY: f64 = 2.0;
const BUSY_BESIDE_GAPS: f64 = 3.0;
/// So many prompts hardly shared their time.
const FEW_PROMPTS: f64 = 2.0;
/// What no engine does.
const ITERATION_SECONDS: std::ops::RangeInclusive<f64> = 1e-5..=1e3;
const MOST_SEQUENCES: f64 = 1e5;
const MOST_PROMPT_TOKENS: f64 = 1e7;
const MOST_RESIDENT_TOKENS: f64 = 1e10;

/// What one interval showed of a backend's engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interval {
    /// Its length, seconds.
    pub seconds: f64,
    /// Requests in the batch at its begin.
    pub running_before: f64,
    /// Requests in the batch at its end.
    pub running: f64,
    /// Requests that ended.
    pub completed: f64,
    /// Mean time to first token of those that got theirs, seconds.
    pub ttft_seconds: Option<f64>,
    /// How many got theirs.
    pub ttft_count: f64,
    /// Mean time between output tokens, seconds.
    pub inter_token_seconds: Option<f64>,
    /// Steps of the engine; 0 where it tells none.
    pub iterations: f64,
    /// Tokens, of prompts and of outputs, that these steps processed; 0 where it tells none.
    pub iteration_tokens: f64,
    /// Prompt tokens.
    pub prompt_tokens: f64,
    /// Output tokens.
    pub output_tokens: f64,
    /// Tokens in the KV cache; none where that is not told.
    pub resident_tokens: Option<f64>,
    /// Tokens that a running request has in the cache, in the mean; for where the former is not told.
    pub resident_per_sequence: f64,
}

/// The mean iteration of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Iteration {
    /// How long it took.
    pub seconds: f64,
    /// Sequences in its batch.
    pub sequences: f64,
    /// Prompt tokens that it prefilled.
    pub prompt_tokens: f64,
    /// Tokens in the KV cache.
    pub resident_tokens: f64,
    /// How much it tells, above 0 to 1.
    pub weight: f64,
    /// Length of the interval, seconds.
    pub interval_seconds: f64,
}

impl Interval {
    /// The mean iteration; none of an engine that was idle, or that does not tell enough.
    pub fn iteration(&self) -> Option<Iteration> {
        if !(self.output_tokens > 0.0 && self.seconds > 0.0) {
            return None;
        }
        let (seconds, sequences, prompt_tokens) =
            if self.iterations >= 1.0 { self.by_steps()? } else { self.by_latency()? };
        let resident = self.resident_tokens.unwrap_or(sequences * self.resident_per_sequence);
        let iteration = Iteration {
            seconds,
            sequences,
            prompt_tokens,
            resident_tokens: resident,
            weight: (self.output_tokens / FULL_WEIGHT_TOKENS).clamp(0.05, 1.0),
            interval_seconds: self.seconds,
        };
        iteration.is_usable().then_some(iteration)
    }

    /// Counters tell the mean exactly, however batch and prompts changed within the interval.
    fn by_steps(&self) -> Option<(f64, f64, f64)> {
        let prefilled = if self.iteration_tokens > 0.0 {
            (self.iteration_tokens - self.output_tokens).max(0.0)
        } else {
            self.prompt_tokens
        };
        let mean = self.seconds / self.iterations;
        let seconds = match self.inter_token_seconds {
            // The steps of several engines that count together, or a long one that began before.
            Some(gap) if mean < SEVERAL_ENGINES * gap => gap,
            Some(gap) if mean <= AGREEMENT * gap => mean,
            // Steps that only decode take what is between tokens.
            Some(gap) if prefilled < self.output_tokens => gap,
            Some(gap) if self.is_busy(BUSY_BESIDE_GAPS) => mean.max(gap),
            Some(gap) => self.beside_idleness(gap, prefilled)?,
            None if self.is_busy(BUSY) => mean,
            None => return None,
        };
        let mut sequences = (self.output_tokens / self.iterations).max(1.0);
        if self.running.min(self.running_before) >= 1.0 {
            // More tokens than sequences come from steps that guess several at once.
            sequences = sequences.min(1.5 * self.running.max(self.running_before));
        }
        Some((seconds, sequences, prefilled / self.iterations))
    }

    /// Whether it had work throughout: a request of its begin runs on, or there were so many at both ends that it was hardly ever empty.
    fn is_busy(&self, many: f64) -> bool {
        let left = self.running_before - self.completed;
        let runs_on = left > 0.0 && self.running >= left;
        runs_on || self.running_before.min(self.running) >= many
    }

    /// Mean time of a step of an engine that was idle first, and then computed a prompt or two: these took the times to first tokens,
    /// which are in no time between tokens. More prompts would share their time, and one that is not through has not told it.
    fn beside_idleness(&self, gap: f64, prefilled: f64) -> Option<f64> {
        let are_few = self.running_before < 1.0 && self.ttft_count <= FEW_PROMPTS;
        let ttft = self.ttft_seconds.filter(|_| are_few && prefilled <= 1.1 * self.prompt_tokens)?;
        let busy = ttft * self.ttft_count + gap * (self.iterations - self.ttft_count).max(0.0);
        (busy <= self.seconds).then(|| busy / self.iterations)
    }

    /// An iteration yields one token for each sequence of the batch.
    fn by_latency(&self) -> Option<(f64, f64, f64)> {
        let sequences = f64::midpoint(self.running_before, self.running).max(1.0);
        Some((self.inter_token_seconds?, sequences, self.prompt_tokens * sequences / self.output_tokens))
    }
}

impl Iteration {
    pub(super) fn is_usable(&self) -> bool {
        ITERATION_SECONDS.contains(&self.seconds)
            && (0.0..=MOST_SEQUENCES).contains(&self.sequences)
            && (0.0..=MOST_PROMPT_TOKENS).contains(&self.prompt_tokens)
            && (0.0..=MOST_RESIDENT_TOKENS).contains(&self.resident_tokens)
            && (0.0..=1.0).contains(&self.weight)
            && self.weight > 0.0
            && (1e-3..=1e5).contains(&self.interval_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second of 50 steps, 10 sequences and 4000 prompt tokens.
    fn busy() -> Interval {
        Interval {
            seconds: 1.0,
            running_before: 9.0,
            running: 12.0,
            completed: 20.0,
            ttft_seconds: Some(0.1),
            ttft_count: 20.0,
            inter_token_seconds: Some(0.021),
            iterations: 50.0,
            iteration_tokens: 4500.0,
            prompt_tokens: 5000.0,
            output_tokens: 500.0,
            resident_tokens: None,
            resident_per_sequence: 400.0,
        }
    }

    #[test]
    fn steps_tell_the_mean_iteration() {
        let iteration = busy().iteration().unwrap();
        assert_eq!((iteration.seconds, iteration.sequences), (0.02, 10.0));
        assert_eq!((iteration.prompt_tokens, iteration.resident_tokens), (80.0, 4000.0));
        let two_engines = Interval { iterations: 100.0, ..busy() };
        assert_eq!(two_engines.iteration().unwrap().seconds, 0.021);
        assert_eq!(Interval { output_tokens: 0.0, ..busy() }.iteration(), None);
    }

    #[test]
    fn prompts_whose_time_is_in_no_gap_between_tokens_take_time_all_the_same() {
        // One request computes its prompt in two steps of 0.4 s, and then decodes; it was there before.
        let alone = Interval {
            running_before: 1.0,
            running: 1.0,
            completed: 0.0,
            iterations: 12.0,
            iteration_tokens: 3000.0,
            output_tokens: 11.0,
            inter_token_seconds: Some(0.02),
            ..busy()
        };
        assert_eq!(alone.iteration().unwrap().seconds, 1.0 / 12.0);
        let went_away = Interval { running: 0.0, ..alone };
        assert_eq!(went_away.iteration(), None, "nobody knows when, and it counts as no completion");
    }

    #[test]
    fn of_an_engine_that_was_idle_for_a_while_gaps_and_first_tokens_tell() {
        // A prompt of 0.2 s, and 11 steps of 0.02 s.
        let idle = Interval {
            running_before: 0.0,
            running: 0.0,
            completed: 1.0,
            ttft_seconds: Some(0.2),
            ttft_count: 1.0,
            inter_token_seconds: Some(0.02),
            iterations: 12.0,
            iteration_tokens: 2012.0,
            prompt_tokens: 2000.0,
            output_tokens: 12.0,
            ..busy()
        };
        let seconds = |interval: Interval| interval.iteration().map(|iteration| iteration.seconds);
        assert!((seconds(idle).unwrap() - 0.42 / 12.0).abs() < 1e-9);
        let without_prompts = Interval { iteration_tokens: 12.0, ..idle };
        assert_eq!(seconds(without_prompts), Some(0.02));
        assert_eq!(seconds(Interval { ttft_seconds: None, ..idle }), None);
        let in_a_prompt = Interval { prompt_tokens: 1000.0, running: 1.0, ..idle };
        assert_eq!(seconds(in_a_prompt), None);
        let of_before = Interval { running_before: 1.0, ..idle };
        assert_eq!(seconds(of_before), None, "most of its prompt may have been computed before");
        let together = Interval { ttft_count: 4.0, ..idle };
        assert_eq!(seconds(together), None);
        assert_eq!(seconds(Interval { inter_token_seconds: None, ..idle }), None);
    }

    #[test]
    fn without_steps_latency_and_batch_tell() {
        let iteration = Interval { iterations: 0.0, ..busy() }.iteration().unwrap();
        assert_eq!((iteration.seconds, iteration.sequences, iteration.prompt_tokens), (0.021, 10.5, 105.0));
        assert_eq!(Interval { iterations: 0.0, inter_token_seconds: None, ..busy() }.iteration(), None);
    }
}
