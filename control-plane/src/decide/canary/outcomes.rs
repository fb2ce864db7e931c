use serde::{Deserialize, Serialize};

/// Shortest and longest time to a first byte that is believed, seconds.
const FIRST_BYTE_SECONDS: (f64, f64) = (0.000_1, 86_400.0);
/// Times are told apart by a quarter of a doubling: less than the least harm that counts.
const STEPS_A_DOUBLING: f64 = 4.0;

/// Requests of one part that ended, and first bytes that came. Entries of access logs are counted, not what they stand for
/// where logs are sampled: evidence is as strong as what was seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcomes {
    /// Requests that ended with an answer or failed. What was refused in overload, and what its client left, is not in it.
    pub requests: u64,
    /// Requests among them that failed: 5xx of the backend, resets, timeouts, no connection.
    pub failures: u64,
    /// Requests of which it is known whether the first byte came in time.
    pub first_bytes: u64,
    /// Requests among them whose first byte did not come in time.
    pub late: u64,
    /// First bytes that came. Of requests that were counted as late before, they come later.
    pub timed: u64,
    /// Sum of the natural logarithms of their times in seconds.
    pub sum_ln: f64,
    /// How many of them took how long: the number of quarters of doublings above 0.1 ms, and the count; ascending.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub times: Vec<(u8, u64)>,
}

impl Outcomes {
    /// Counts a first byte that came after `seconds`, where it should come within `promised_seconds`. With `is_told` it was
    /// counted as late while it was waited for ([`Outcomes::count_silent`]).
    pub fn count_first_byte(&mut self, seconds: f64, promised_seconds: f64, is_told: bool) {
        let (least, most) = FIRST_BYTE_SECONDS;
        let believed = seconds.clamp(least, most);
        if !is_told {
            self.first_bytes += 1;
            self.late += u64::from(seconds > promised_seconds);
        }
        self.timed += 1;
        self.sum_ln += believed.ln();
        self.count_time((STEPS_A_DOUBLING * (believed / least).log2()) as u8, 1);
    }

    /// Counts a request without a first byte after the time that was promised.
    pub fn count_silent(&mut self) {
        self.first_bytes += 1;
        self.late += 1;
    }

    fn count_time(&mut self, time: u8, count: u64) {
        match self.times.binary_search_by_key(&time, |(time, _)| *time) {
            Ok(place) => {
                if let Some((_, counted)) = self.times.get_mut(place) {
                    *counted = counted.saturating_add(count);
                }
            }
            Err(place) => self.times.insert(place, (time, count)),
        }
    }

    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        self.requests = self.requests.saturating_add(others.requests);
        self.failures = self.failures.saturating_add(others.failures);
        self.first_bytes = self.first_bytes.saturating_add(others.first_bytes);
        self.late = self.late.saturating_add(others.late);
        self.timed = self.timed.saturating_add(others.timed);
        self.sum_ln += others.sum_ln;
        others.times.iter().for_each(|(time, count)| self.count_time(*time, *count));
    }

    /// Whether it can be: parts are not larger than the whole, and sums are numbers.
    pub fn is_possible(&self) -> bool {
        // A collector reads a few ten thousand entries a second.
        const MOST: u64 = 1 << 20;
        let ascends = self.times.is_sorted_by(|(left, _), (right, _)| left < right);
        let by_time = self.times.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        self.failures <= self.requests
            && self.late <= self.first_bytes
            && self.requests.max(self.first_bytes).max(self.timed) < MOST
            && self.sum_ln.abs() <= 20.0 * self.timed as f64
            && ascends
            && by_time == self.timed
    }
}

/// The outcomes of both parts of a model's requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartOutcomes {
    /// Of the requests that took the cluster with shares by predictions.
    pub steered: Outcomes,
    /// Of those that took its static twin.
    pub unsteered: Outcomes,
}

impl PartOutcomes {
    /// Adds others.
    pub fn add(&mut self, others: &Self) {
        self.steered.add(&others.steered);
        self.unsteered.add(&others.unsteered);
    }

    /// Whether it can be.
    pub fn is_possible(&self) -> bool {
        self.steered.is_possible() && self.unsteered.is_possible()
    }
}
