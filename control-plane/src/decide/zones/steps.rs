/// Flows from zones (rows) to groups, in parts of all requests.
pub(super) type Flows = Vec<Vec<f64>>;

/// Flows with the right sums of rows, brought to the right sums of columns: what is too much somewhere goes where something
/// is missing, each row in proportion to what it has. No more moves than the sums ask for, and rows keep their sums.
pub(super) fn repaired(flows: Flows, demand: &[f64], shares: &[f64]) -> Flows {
    let columns: Vec<f64> =
        (0..shares.len()).map(|group| flows.iter().map(|row| row[group]).sum::<f64>()).collect();
    let missing: Vec<f64> = columns.iter().zip(shares).map(|(has, share)| (share - has).max(0.0)).collect();
    let missing_sum: f64 = missing.iter().sum();
    flows
        .into_iter()
        .zip(demand)
        .map(|(row, demand)| {
            let kept: Vec<f64> = row
                .iter()
                .zip(columns.iter().zip(shares))
                .map(|(flow, (has, share))| if has > share { flow * share / has } else { *flow })
                .collect();
            let freed = (demand - kept.iter().sum::<f64>()).max(0.0);
            let given = |missing: &f64| if missing_sum > 0.0 { freed * missing / missing_sum } else { 0.0 };
            kept.iter().zip(&missing).map(|(kept, missing)| kept + given(missing)).collect()
        })
        .collect()
}

/// A step from flows towards others of the same sums, that moves no more than a part of all requests.
pub(super) fn stepped(from: &Flows, to: &Flows, largest: f64) -> Flows {
    let pairs = || from.iter().flatten().zip(to.iter().flatten());
    let moved: f64 = pairs().map(|(from, to)| (to - from).abs()).sum::<f64>() / 2.0;
    if moved <= largest {
        return to.clone();
    }
    let part = largest / moved;
    let step = |(from, to): (&Vec<f64>, &Vec<f64>)| {
        from.iter().zip(to).map(|(from, to)| from + part * (to - from)).collect()
    };
    from.iter().zip(to).map(step).collect()
}
