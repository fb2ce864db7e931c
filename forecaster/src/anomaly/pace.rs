use super::Fading;

/// Tokens that one pace is made of, at least: the time between fewer tells of single prompts beside them.
const TOKENS_MIN: f64 = 10.0;

/// Paces of a backend after which one weighs half in what is usual for it.
const OWN_HALF_LIFE: f64 = 60.0;

/// Paces of a backend before it teaches the law of its class.
const OWN_MIN: f64 = 10.0;

/// Paces of a class after which one weighs half in its law.
const LAW_HALF_LIFE: f64 = 1000.0;

/// Departures of a pace from what is usual beyond this are cut before the law learns of them, as parts of the usual: a
/// backend that slows down has more to do at once, and that must not look like a law.
const DEPARTURE_MAX: f64 = 0.5;

/// How much the slopes of the law are held back, as what they are measured by: the squared departures of load of so
/// many paces. Without load that varies there is no law.
const HELD_BACK: [f64; LOADS] = [1.0, 0.01];

/// A law corrects a pace by these factors at most.
const CORRECTION: (f64, f64) = (0.2, 5.0);

/// What slows a token down besides the backend itself: tens of requests in the batch, and thousands of prompt tokens
/// computed in an iteration.
const LOADS: usize = 2;

/// What one interval showed of a backend's tokens. What is negative or not finite makes it unusable.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TokenWork {
    /// Mean time between two tokens of a stream (TPOT), in seconds.
    pub inter_token_seconds: f64,
    /// Requests in the batch.
    pub running: f64,
    /// Output tokens within the interval.
    pub output_tokens: f64,
    /// Prompt tokens computed within the interval.
    pub prompt_tokens: f64,
}

impl TokenWork {
    fn is_usable(&self) -> bool {
        let all = [self.inter_token_seconds, self.running, self.output_tokens, self.prompt_tokens];
        all.iter().all(|value| value.is_finite() && *value >= 0.0)
            && self.inter_token_seconds > 0.0
            && self.output_tokens > 0.0
    }

    /// An iteration yields one token for each request of the batch, so there were `output_tokens / running` of them.
    fn loads(&self) -> [f64; LOADS] {
        let in_an_iteration = self.prompt_tokens * self.running.max(1.0) / self.output_tokens;
        [self.running / 10.0, in_an_iteration / 1000.0]
    }
}

/// What a backend's own paces usually are, and at what load.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnPace {
    tokens: f64,
    seconds: f64,
    loads: [f64; LOADS],
    usual: Fading,
    usual_loads: [Fading; LOADS],
}

impl Default for OwnPace {
    fn default() -> Self {
        let fading = Fading::new(OWN_HALF_LIFE);
        Self { tokens: 0.0, seconds: 0.0, loads: [0.0; LOADS], usual: fading, usual_loads: [fading; LOADS] }
    }
}

impl OwnPace {
    /// Adds an interval; returns a pace and its loads when there are enough tokens for one.
    fn add(&mut self, work: &TokenWork) -> Option<(f64, [f64; LOADS])> {
        self.tokens += work.output_tokens;
        self.seconds += work.output_tokens * work.inter_token_seconds;
        for (sum, load) in self.loads.iter_mut().zip(work.loads()) {
            *sum += work.output_tokens * load;
        }
        if self.tokens < TOKENS_MIN {
            return None;
        }
        let (pace, loads) = (self.seconds / self.tokens, self.loads.map(|sum| sum / self.tokens));
        (self.tokens, self.seconds, self.loads) = (0.0, 0.0, [0.0; LOADS]);
        Some((pace, loads))
    }

    /// What is usual, the pace and its loads, once that is known.
    fn usual(&self) -> Option<(f64, [f64; LOADS])> {
        let usual = self.usual.mean().filter(|_| self.usual.weight >= OWN_MIN)?;
        Some((usual, self.usual_loads.map(|load| load.mean().unwrap_or(0.0))))
    }

    fn learn(&mut self, pace: f64, loads: [f64; LOADS]) {
        self.usual.add(pace);
        self.usual_loads.iter_mut().zip(loads).for_each(|(usual, load)| usual.add(load));
    }
}

/// How the time between two tokens depends on load within a class of equal backends, so that one that has more to do is
/// not taken for a slow one.
///
/// Learned from how each backend departs from what is usual for itself (the within estimator of panel data, by ridge
/// regression), never from how backends differ: that one is slow and busy at once explains nothing. Slopes are not
/// negative: no load makes tokens come faster.
#[derive(Debug, Clone, PartialEq)]
pub struct PaceLaw {
    typical_loads: [Fading; LOADS],
    keep: f64,
    /// Sums of products of departures: of loads with loads, and of loads with paces.
    loads: [[f64; LOADS]; LOADS],
    paces: [f64; LOADS],
}

impl Default for PaceLaw {
    fn default() -> Self {
        Self {
            typical_loads: [Fading::new(LAW_HALF_LIFE); LOADS],
            keep: 0.5_f64.powf(1.0 / LAW_HALF_LIFE),
            loads: [[0.0; LOADS]; LOADS],
            paces: [0.0; LOADS],
        }
    }
}

impl PaceLaw {
    /// Takes in what an interval showed of one backend of the class. Returns the time between two tokens that the backend
    /// would have at the typical load of the class, in seconds, for [`Vitals::pace_seconds`](super::Vitals::pace_seconds);
    /// `None` while there are too few tokens for one, or when the interval is not usable.
    pub fn observe(&mut self, own: &mut OwnPace, work: &TokenWork) -> Option<f64> {
        if !work.is_usable() {
            return None;
        }
        let (pace, loads) = own.add(work)?;
        self.typical_loads.iter_mut().zip(loads).for_each(|(typical, load)| typical.add(load));
        if let Some((usual, usual_loads)) = own.usual() {
            // In parts of what is usual at the typical load, the same for a busy backend as for an idle one.
            let off = (pace / usual - 1.0).clamp(-DEPARTURE_MAX, DEPARTURE_MAX) * self.factor(usual_loads);
            let mut loads_off = loads;
            loads_off.iter_mut().zip(usual_loads).for_each(|(load, usual)| *load -= usual);
            self.learn(off, loads_off);
        }
        own.learn(pace, loads);
        Some(pace / self.factor(loads))
    }

    /// How many times longer than at the typical load of the class a token takes.
    fn factor(&self, loads: [f64; LOADS]) -> f64 {
        let terms = self.slopes().into_iter().zip(loads).zip(&self.typical_loads);
        let more: f64 =
            terms.map(|((slope, load), typical)| slope * (load - typical.mean().unwrap_or(load))).sum();
        (1.0 + more).clamp(CORRECTION.0, CORRECTION.1)
    }

    fn learn(&mut self, off: f64, loads_off: [f64; LOADS]) {
        for (row, load) in self.loads.iter_mut().zip(loads_off) {
            for (sum, other) in row.iter_mut().zip(loads_off) {
                *sum = *sum * self.keep + load * other;
            }
        }
        for (sum, load) in self.paces.iter_mut().zip(loads_off) {
            *sum = *sum * self.keep + load * off;
        }
    }

    /// By how many parts of that at the typical load a pace grows for each unit of load.
    fn slopes(&self) -> [f64; LOADS] {
        let [[a, b], [_, d]] = self.loads;
        let (a, d) = (a + HELD_BACK[0], d + HELD_BACK[1]);
        let [p, q] = self.paces;
        let determinant = a * d - b * b;
        let (first, second) = ((p * d - q * b) / determinant, (q * a - p * b) / determinant);
        if first < 0.0 {
            return [0.0, (q / d).max(0.0)];
        }
        if second < 0.0 {
            return [(p / a).max(0.0), 0.0];
        }
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AnomalyKind, AnomalyWatch, Vitals, judge};
    use super::*;

    /// A backend with so many requests in the batch in the mean, which come and go.
    fn work(turn: u32, running: f64, times: f64) -> TokenWork {
        let wave = |pace: f64| (f64::from(turn) * pace).sin();
        let running = running * (1.0 + 0.5 * wave(0.31));
        let output_tokens = 40.0 * running;
        let prompt_tokens = output_tokens * 8.0 * (1.0 + wave(0.83));
        let in_an_iteration = prompt_tokens * running.max(1.0) / output_tokens;
        let seconds = 0.008 + 0.0008 * running + 0.000_04 * in_an_iteration;
        let inter_token_seconds = times * seconds * (1.0 + 0.05 * wave(2.9));
        TokenWork { inter_token_seconds, running, output_tokens, prompt_tokens }
    }

    /// Runs a class of backends of `(mean running, times slower)`, each as usual for 200 intervals; returns who is slow.
    fn slow(class: &[(f64, f64)], after: u32) -> Vec<usize> {
        let mut law = PaceLaw::default();
        let mut watches = vec![(AnomalyWatch::default(), OwnPace::default()); class.len()];
        for turn in 0..200 + after {
            for (index, ((watch, own), (running, times))) in watches.iter_mut().zip(class).enumerate() {
                let times = if turn < 200 { 1.0 } else { *times };
                let work = work(turn + 7 * index as u32, *running, times);
                let pace_seconds = law.observe(own, &work);
                watch.observe(&Vitals { interval_seconds: 1.0, pace_seconds, ..Vitals::default() });
            }
        }
        let verdicts = judge(&watches.iter().map(|(watch, _)| watch).collect::<Vec<_>>());
        let is_slow = |index: &usize| {
            verdicts[*index].anomalies.iter().any(|found| found.kind == AnomalyKind::SlowerThanPeers)
        };
        (0..class.len()).filter(is_slow).collect()
    }

    #[test]
    fn a_busy_backend_is_not_a_slow_one() {
        assert_eq!(slow(&[(4.0, 1.0), (4.0, 1.0), (4.0, 1.0), (20.0, 1.0)], 100), [0; 0]);
    }

    #[test]
    fn a_slow_backend_is_found_at_any_load() {
        for running in [1.0, 4.0, 20.0] {
            assert_eq!(slow(&[(4.0, 1.0), (4.0, 1.0), (4.0, 1.0), (running, 1.6)], 60), [3], "{running}");
        }
    }

    #[test]
    fn what_slows_all_down_alike_is_no_fault_of_one() {
        assert_eq!(slow(&[(4.0, 2.0), (4.0, 2.0), (4.0, 2.0), (8.0, 2.0)], 100), [0; 0]);
    }

    #[test]
    fn few_tokens_are_gathered_and_rubbish_is_ignored() {
        let (mut law, mut own) = (PaceLaw::default(), OwnPace::default());
        let few =
            TokenWork { inter_token_seconds: 0.02, running: 1.0, output_tokens: 4.0, prompt_tokens: 0.0 };
        let paces: Vec<_> = (0..6).map(|_| law.observe(&mut own, &few)).collect();
        assert_eq!(paces.iter().flatten().count(), 2);
        assert!(paces.iter().flatten().all(|pace| (pace - 0.02).abs() < 1e-12), "{paces:?}");
        for value in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            assert_eq!(law.observe(&mut own, &TokenWork { inter_token_seconds: value, ..few }), None);
            assert_eq!(law.observe(&mut own, &TokenWork { output_tokens: value, ..few }), None);
        }
    }
}
