//! Whether machines got what Envoys were told to give them.

use super::gpu::Gpu;
use super::outcome::{CellResult, Told};

/// Requests are counted over so long, simulated seconds.
const WINDOW_SECONDS: f64 = 10.0;

/// Shares that were told beside those of the requests, of each class in each window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Handed {
    /// Root mean square of the differences.
    pub difference: f64,
    /// The same, had each request been drawn at random by the shares that were told.
    pub by_chance: f64,
    /// Part of the traffic that was moved from one second to the next, in the mean.
    pub mean_step: f64,
    /// The largest such part.
    pub largest_step: f64,
}

impl Handed {
    /// None where nobody told shares, or nothing was served.
    pub fn new(result: &CellResult) -> Option<Self> {
        let (mut squares, mut chances) = (Vec::new(), Vec::new());
        let windows = (result.plan.measured_seconds / WINDOW_SECONDS).floor() as usize;
        for window in 0..windows {
            let from = window as f64 * WINDOW_SECONDS;
            let is_in = |at: f64| (from..from + WINDOW_SECONDS).contains(&at);
            let given: Vec<usize> = result
                .served
                .iter()
                .filter(|served| is_in(served.at))
                .filter_map(|served| served.machine)
                .collect();
            let told: Vec<&[f64]> =
                result.told.iter().filter(|told| is_in(told.at)).map(|told| told.shares.as_slice()).collect();
            if given.is_empty() || told.is_empty() {
                continue;
            }
            let requests = given.len() as f64;
            for class in Gpu::ALL {
                let is_of = |index: usize| result.machines.get(index).is_some_and(|of| of.class == class);
                let of_class = |shares: &[f64]| -> f64 {
                    let pairs = shares.iter().enumerate();
                    pairs.filter(|(index, _)| is_of(*index)).map(|(_, share)| share).sum()
                };
                let told = told.iter().map(|shares| of_class(shares)).sum::<f64>() / told.len() as f64;
                let given = given.iter().filter(|index| is_of(**index)).count() as f64 / requests;
                squares.push((told - given).powi(2));
                chances.push(told * (1.0 - told) / requests);
            }
        }
        let told: Vec<&Told> = result.told.iter().filter(|told| told.at >= 0.0).collect();
        let moves: Vec<f64> = told.windows(2).map(|pair| moved(&pair[0].shares, &pair[1].shares)).collect();
        (!squares.is_empty() && !moves.is_empty()).then(|| Self {
            difference: mean(&squares).sqrt(),
            by_chance: mean(&chances).sqrt(),
            mean_step: mean(&moves),
            largest_step: moves.iter().copied().fold(0.0, f64::max),
        })
    }
}

fn moved(before: &[f64], after: &[f64]) -> f64 {
    before.iter().zip(after).map(|(before, after)| (before - after).abs()).sum::<f64>() / 2.0
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::result;
    use super::*;

    #[test]
    fn what_is_told_is_held_against_what_is_given() {
        // Three of ten requests go to the first machine, the others to the fifth, which is of another class.
        let served = |at: f64| (if (10.0 * at).round() as usize % 10 < 3 { 0 } else { 4 }, 1.0);
        let mut result = result("steady-code-0.70", "predictive", Vec::new(), served);
        assert_eq!(Handed::new(&result), None);
        let told = |first: f64| {
            move |second: u32| {
                let mut shares = vec![0.0; 16];
                (shares[0], shares[4]) = (first, 1.0 - first);
                Told { at: f64::from(second), shares }
            }
        };
        result.told = (0..200).map(told(0.3)).collect();
        let exact = Handed::new(&result).unwrap();
        assert!(exact.difference < 1e-9 && exact.largest_step < 1e-9, "{exact:?}");
        // Of four classes two have requests: 100 in a window, drawn with 0.3 and 0.7.
        assert!((exact.by_chance - (0.3 * 0.7 / 100.0 / 2.0_f64).sqrt()).abs() < 1e-9, "{exact:?}");
        result.told.truncate(100);
        result.told.extend((100..200).map(told(0.4)));
        let off = Handed::new(&result).unwrap();
        assert!((off.difference - (0.1_f64.powi(2) / 4.0).sqrt()).abs() < 1e-9, "{off:?}");
        assert!(
            (off.largest_step - 0.1).abs() < 1e-9 && (off.mean_step - 0.1 / 199.0).abs() < 1e-9,
            "{off:?}"
        );
    }
}
