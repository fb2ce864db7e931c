use serde::{Deserialize, Serialize};

use super::Fading;

/// Residuals of which the median is one step of the test, at least, and at most; and the time that they span. Single waits
/// have heavy tails, and the hundred that stood in one queue are one observation, not a hundred.
const BLOCK_MIN: usize = 8;
const BLOCK_MAX: usize = 64;
const BLOCK_SECONDS: f64 = 10.0;

/// Residuals beyond this are cut, in units of their expected size.
const CLIP: f64 = 5.0;

/// Blocks after which one weighs half in what is usual.
const USUAL_HALF_LIFE: f64 = 100.0;

/// Blocks before anything is said.
const BLOCKS_MIN: f64 = 8.0;

/// Deviations of a block from what is usual beyond this are cut when learning what is usual: a fault must not become so.
const USUAL_CLIP: f64 = 3.0;

/// The least deviation that is usual, in units of the expected size of a residual.
const DEVIATION_MIN: f64 = 0.8;

/// Slack and threshold of the cumulative sum (CUSUM, Page 1954), in usual deviations: on independent blocks a false alarm
/// every some ten thousand of them.
const SLACK: f64 = 0.75;
const ALARM: f64 = 6.0;

/// The sum grows no further, so that it falls soon after the fault is over; in thresholds.
const SUM_MAX: f64 = 2.0;

/// Blocks whose mean is the present level.
const LEVEL_HALF_LIFE: f64 = 2.0;

/// Finds that residuals have become larger than they use to be.
///
/// A surge that the wait model does not foresee looks the same: on simulated servers under bursts there was a false alarm
/// in some two hours, which the comparison with peers takes away where the surge meets them too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Drift {
    block: Vec<f64>,
    block_count: usize,
    block_from: Option<f64>,
    usual: Fading,
    usual_deviation: Fading,
    level: Fading,
    sum: f64,
}

impl Default for Drift {
    fn default() -> Self {
        let usual = Fading::new(USUAL_HALF_LIFE);
        let level = Fading::new(LEVEL_HALF_LIFE);
        Self {
            block: Vec::new(),
            block_count: 0,
            block_from: None,
            usual,
            usual_deviation: usual,
            level,
            sum: 0.0,
        }
    }
}

impl Drift {
    pub(super) fn observe(&mut self, residual: f64, now_seconds: f64) {
        let residual = residual.clamp(-CLIP, CLIP);
        if self.block.len() < BLOCK_MAX {
            self.block.push(residual);
        } else {
            self.block[self.block_count % BLOCK_MAX] = residual;
        }
        self.block_count += 1;
        let passed = now_seconds - *self.block_from.get_or_insert(now_seconds);
        // A clock that went back ends the block too.
        if self.block.len() < BLOCK_MIN || (0.0..BLOCK_SECONDS).contains(&passed) {
            return;
        }
        self.block.sort_by(f64::total_cmp);
        let median = self.block[self.block.len() / 2];
        self.block.clear();
        (self.block_count, self.block_from) = (0, None);
        self.level.add(median);
        let (usual, deviation) = (self.usual(), self.deviation());
        let off = (median - usual) / deviation;
        if self.usual.weight >= BLOCKS_MIN {
            self.sum = (self.sum + off - SLACK).clamp(0.0, SUM_MAX * ALARM);
        }
        let learned = if self.usual.weight >= BLOCKS_MIN { off.clamp(-USUAL_CLIP, USUAL_CLIP) } else { off };
        self.usual.add(usual + learned * deviation);
        self.usual_deviation.add((learned * deviation).abs());
    }

    fn usual(&self) -> f64 {
        self.usual.mean().unwrap_or(0.0)
    }

    /// The usual standard deviation of a block, as a normal distribution with that mean size has.
    fn deviation(&self) -> f64 {
        (1.25 * self.usual_deviation.mean().unwrap_or(1.0)).max(DEVIATION_MIN)
    }

    /// Returns the sum over its threshold.
    pub(super) fn score(&self) -> f64 {
        self.sum / ALARM
    }

    /// Returns how far off residuals lately are, in units of their expected size, and how far they usually are.
    pub(super) fn levels(&self) -> (f64, f64) {
        (self.level.mean().unwrap_or(0.0), self.usual())
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.block.len() <= BLOCK_MAX
    }
}
