use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::shares::normalised;
use super::input::Law;

/// At least this part of the way is gone where a failing backend loses its share.
const FAILING_SMOOTHING: f64 = 0.9;

/// A step from the shares before towards the wanted ones, both of sum 1. It moves no more of the traffic than the law
/// allows, but for what is taken from failing backends, which goes faster, too; others get just what is taken from some.
pub(super) fn step(before: &[f64], wanted: &[f64], is_failing: &[bool], law: &Law) -> Vec<f64> {
    let moves: Vec<f64> = before
        .iter()
        .zip(wanted)
        .zip(is_failing)
        .map(|((before, wanted), is_failing)| {
            let is_fast = *is_failing && wanted < before;
            let part = if is_fast { law.smoothing.max(FAILING_SMOOTHING) } else { law.smoothing };
            part * (wanted - before)
        })
        .collect();
    let (mut from_failing, mut from_others, mut given) = (0.0, 0.0, 0.0);
    for (by, is_failing) in moves.iter().zip(is_failing) {
        match (*by < 0.0, is_failing) {
            (true, true) => from_failing -= by,
            (true, false) => from_others -= by,
            (false, _) => given += by,
        }
    }
    let held = if from_others > law.largest_step { law.largest_step / from_others } else { 1.0 };
    let scale = if given > 0.0 { (from_failing + held * from_others) / given } else { 0.0 };
    let part = |by: f64, is_failing: bool| match (by < 0.0, is_failing) {
        (true, true) => by,
        (true, false) => held * by,
        (false, _) => scale * by,
    };
    let stepped: Vec<f64> = before
        .iter()
        .zip(&moves)
        .zip(is_failing)
        .map(|((before, by), is_failing)| (before + part(*by, *is_failing)).max(0.0))
        .collect();
    normalised(&stepped)
}

/// Part of the traffic that moves between two sets of shares, 0 to 1; all of it when they are of other backends.
pub fn moved(current: &BTreeMap<SocketAddr, f64>, published: &BTreeMap<SocketAddr, f64>) -> f64 {
    if current.keys().ne(published.keys()) {
        return 1.0;
    }
    current.values().zip(published.values()).map(|(share, before)| (share - before).abs()).sum::<f64>() / 2.0
}
