use serde::{Deserialize, Serialize};

use super::EngineSize;

/// Samples in a row, with requests that wait and about as many that run, that show a full batch. A request that has just
/// come waits for the next step in any engine.
const SAMPLES_IN_A_ROW: u32 = 8;
/// Part of what runs that has to wait, and by which what runs may change.
const PART: f64 = 0.1;
/// What is left of the largest full batch with each further sample of a full one: settings change.
const KEPT: f64 = 0.999;
/// A cache that is fuller than this is what requests wait for.
const FULL_CACHE: f64 = 0.9;
/// A cache that is emptier than this tells nothing of its size.
const LEAST_CACHE_USED: f64 = 0.05;
/// Smoothing of what a cache is taken to hold, per sample.
const CACHE_GAIN: f64 = 0.02;

/// How much room an engine seems to have, by what was seen of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Room {
    samples_in_a_row: u32,
    /// Sequences that ran within these.
    least: f64,
    most: f64,
    full_batch: Option<f64>,
    /// Logarithm of the tokens that the cache seems to hold.
    log_kv_tokens: Option<f64>,
}

impl Room {
    /// Takes sequences that run and wait, the part of the cache in use, and tokens that a running sequence has in it, in the
    /// mean.
    pub(super) fn observe(&mut self, running: f64, waiting: f64, kv_used: Option<f64>, per_sequence: f64) {
        if !(running >= 1.0 && running.is_finite()) {
            self.samples_in_a_row = 0;
            return;
        }
        if let Some(used) = kv_used.filter(|used| *used >= LEAST_CACHE_USED) {
            let log_tokens = (running * per_sequence / used).ln();
            if log_tokens.is_finite() {
                let log_tokens = log_tokens.clamp(0.0, 25.0);
                let held = self.log_kv_tokens.unwrap_or(log_tokens);
                self.log_kv_tokens = Some(held + CACHE_GAIN * (log_tokens - held));
            }
        }
        // It is no smaller than what was seen.
        self.full_batch = self.full_batch.map(|most| most.max(running));
        let waits = waiting >= (PART * running).max(1.0) && kv_used.is_none_or(|used| used < FULL_CACHE);
        if !waits {
            self.samples_in_a_row = 0;
            return;
        }
        let goes_on = self.samples_in_a_row > 0;
        self.least = if goes_on { self.least.min(running) } else { running };
        self.most = if goes_on { self.most.max(running) } else { running };
        if self.most - self.least > (PART * self.most).max(1.0) {
            (self.samples_in_a_row, self.least, self.most) = (0, running, running);
        }
        self.samples_in_a_row = self.samples_in_a_row.saturating_add(1);
        if self.samples_in_a_row >= SAMPLES_IN_A_ROW {
            let kept = self.full_batch.map_or(0.0, |most| KEPT * most);
            self.full_batch = Some(kept.max(self.most));
        }
    }

    /// What is told of the engine's size, with the gaps filled by what was seen.
    pub(super) fn fill(&self, told: &EngineSize) -> EngineSize {
        EngineSize {
            max_sequences: told.max_sequences.or(self.full_batch),
            kv_tokens: told.kv_tokens.or_else(|| self.log_kv_tokens.map(f64::exp)),
            token_budget: told.token_budget,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(room: &Room) -> (Option<f64>, Option<f64>) {
        let EngineSize { max_sequences, kv_tokens, .. } = room.fill(&EngineSize::default());
        (max_sequences, kv_tokens)
    }

    #[test]
    fn a_batch_is_full_when_requests_wait_beside_as_many_for_long() {
        let mut room = Room::default();
        for second in 0..300 {
            // Light load: now and then one has just come.
            let waiting = f64::from(second % 3 % 2);
            room.observe(f64::from(second % 4 + 1), waiting, Some(0.02), 1000.0);
        }
        assert_eq!(size(&room), (None, None));
        (0..10).for_each(|_| room.observe(90.0, 20.0, Some(0.95), 1000.0));
        assert_eq!(size(&room).0, None, "these wait for cache");
        let mut room = Room::default();
        (0..50).for_each(|_| room.observe(64.0, 9.0, Some(0.5), 1000.0));
        assert_eq!(size(&room).0, Some(64.0));
        assert!((size(&room).1.unwrap() - 128_000.0).abs() < 1.0);
        room.observe(80.0, 0.0, Some(0.5), 1000.0);
        assert_eq!(size(&room).0, Some(80.0), "it is no smaller than what was seen");
        (0..1000).for_each(|_| room.observe(32.0, 9.0, Some(0.5), 1000.0));
        assert_eq!(size(&room).0, Some(32.0), "it runs with another setting now");
        let told = EngineSize { max_sequences: Some(256.0), ..EngineSize::default() };
        assert_eq!(room.fill(&told).max_sequences, Some(256.0));
    }
}
