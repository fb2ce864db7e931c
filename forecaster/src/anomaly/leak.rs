use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Observations whose mean is one point of the trend: use of the cache goes with the requests at hand, and neighbouring
/// scrapes see the same ones.
const BLOCK: u32 = 10;

/// Points that are kept: 240 observations, four minutes at one a second.
const POINTS: usize = 24;

/// Points from which a trend is looked for.
const POINTS_MIN: usize = 12;

/// Growth over what is kept from which on it is a leak, in shares of the cache.
const GROWTH_MIN: f64 = 0.08;

/// Standard errors that the growth must be away from none. High, as points are not quite independent.
const SURE: f64 = 6.0;

/// Finds that the KV cache fills up without load to show for it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Leak {
    kv_sum: f64,
    running_sum: f64,
    count: u32,
    points: VecDeque<Point>,
}

/// Means of a block.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    kv_used: f64,
    running: f64,
}

/// Growth of the use of the cache at equal load, over the observations that are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Growth {
    /// In shares of the cache.
    pub(super) share: f64,
    /// In standard errors.
    pub(super) errors: f64,
    /// The newest use.
    pub(super) kv_used: f64,
    pub(super) observations: usize,
}

impl Leak {
    pub(super) fn observe(&mut self, kv_used: f64, running: f64) {
        self.kv_sum += kv_used;
        self.running_sum += running;
        self.count += 1;
        if self.count < BLOCK {
            return;
        }
        if self.points.len() >= POINTS {
            self.points.pop_front();
        }
        let count = f64::from(self.count);
        self.points.push_back(Point { kv_used: self.kv_sum / count, running: self.running_sum / count });
        (self.kv_sum, self.running_sum, self.count) = (0.0, 0.0, 0);
    }

    /// Fits the use of the cache by time and load (ordinary least squares) and returns the part of time.
    pub(super) fn growth(&self) -> Option<Growth> {
        let count = self.points.len();
        if count < POINTS_MIN {
            return None;
        }
        let n = count as f64;
        let mean = |of: fn(&Point) -> f64| self.points.iter().map(of).sum::<f64>() / n;
        let (mean_kv, mean_running) = (mean(|point| point.kv_used), mean(|point| point.running));
        let mean_time = (n - 1.0) / 2.0;
        let [mut tt, mut tr, mut rr, mut tk, mut rk] = [0.0; 5];
        for (index, point) in self.points.iter().enumerate() {
            let (t, r, k) = (index as f64 - mean_time, point.running - mean_running, point.kv_used - mean_kv);
            tt += t * t;
            tr += t * r;
            rr += r * r;
            tk += t * k;
            rk += r * k;
        }
        // A load that is as good as constant explains nothing.
        let (by_time, by_load, left) = if rr > 1e-9 * n && tt * rr - tr * tr > 1e-6 * tt * rr {
            let determinant = tt * rr - tr * tr;
            ((tk * rr - rk * tr) / determinant, (rk * tt - tk * tr) / determinant, determinant / rr)
        } else {
            (tk / tt, 0.0, tt)
        };
        let residuals = self.points.iter().enumerate().map(|(index, point)| {
            let said = by_time * (index as f64 - mean_time) + by_load * (point.running - mean_running);
            (point.kv_used - mean_kv - said).powi(2)
        });
        let variance = (residuals.sum::<f64>() / (n - 3.0)).max(1e-10);
        Some(Growth {
            share: by_time * (n - 1.0),
            errors: by_time / (variance / left).sqrt(),
            kv_used: self.points.back().map_or(0.0, |point| point.kv_used),
            observations: count * BLOCK as usize,
        })
    }

    pub(super) fn is_bounded(&self) -> bool {
        self.points.len() <= POINTS && self.count < BLOCK
    }
}

impl Growth {
    /// Returns the smaller of growth and certainty, each over its threshold.
    pub(super) fn score(&self) -> f64 {
        (self.share / GROWTH_MIN).min(self.errors / SURE).max(0.0)
    }
}
