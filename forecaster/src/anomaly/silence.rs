use serde::{Deserialize, Serialize};

use super::Fading;

/// A backend with requests is silent after this many times the usual time between two completions.
const USUAL_GAPS: f64 = 10.0;

/// It is never silent before this, in seconds: a scrape may be late, a prompt long.
const SECONDS_MIN: f64 = 15.0;

/// The usual time between two completions while none was seen, in seconds: an answer may take a minute.
const GAP_ASSUMED: f64 = 6.0;

/// Observations under load after which one weighs half in the usual time between completions.
const HALF_LIFE: f64 = 300.0;

/// Finds that nothing comes out while there is something to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Silence {
    seconds: f64,
    load: f64,
    loaded_seconds: Fading,
    loaded_completions: Fading,
}

impl Default for Silence {
    fn default() -> Self {
        let fading = Fading::new(HALF_LIFE);
        Self { seconds: 0.0, load: 0.0, loaded_seconds: fading, loaded_completions: fading }
    }
}

impl Silence {
    /// Takes in what happened within `seconds`. Tokens are a sign of life too: long answers end seldom.
    pub(super) fn observe(&mut self, seconds: f64, load: f64, completed: Option<f64>, tokens: Option<f64>) {
        let known = completed.is_some() || tokens.is_some();
        let alive = completed.unwrap_or(0.0) > 0.0 || tokens.unwrap_or(0.0) > 0.0;
        self.load = load;
        if !known {
            return;
        }
        if load < 1.0 || alive {
            self.seconds = 0.0;
        } else {
            self.seconds += seconds;
        }
        // What is learned while nothing comes out would make silence usual.
        if alive && load >= 1.0 {
            self.loaded_seconds.add(seconds);
            self.loaded_completions.add(completed.unwrap_or(0.0).max(0.1));
        }
    }

    /// The silence that is long, in seconds.
    fn long_seconds(&self) -> f64 {
        let (seconds, completions) = (self.loaded_seconds.mean(), self.loaded_completions.mean());
        let gap =
            seconds.zip(completions).map_or(GAP_ASSUMED, |(seconds, completions)| seconds / completions);
        (USUAL_GAPS * gap.min(GAP_ASSUMED)).max(SECONDS_MIN)
    }

    pub(super) fn score(&self) -> f64 {
        self.seconds / self.long_seconds()
    }

    /// Returns how long nothing came, in seconds, and how many requests are there.
    pub(super) fn seen(&self) -> (f64, f64) {
        (self.seconds, self.load)
    }
}
