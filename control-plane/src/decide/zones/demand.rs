use super::input::{NodeZone, ZonesState};

/// Part of the way from what was seen to what is measured that is gone with each evaluation: some ten seconds.
const SMOOTHING: f64 = 0.1;
/// The demand in force follows what is seen when this part of it has moved.
const DEAD_BAND: f64 = 0.03;
/// A zone counts for at least this part of what its number of Envoys would give it: what is small is known badly, and may
/// grow before it is seen to.
const FLOOR: f64 = 0.1;
/// More requests/s are none.
const MOST_RPS: f64 = 1e9;

/// A zone's part of the demand, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Demand {
    /// As it was seen of late.
    pub(super) seen: f64,
    /// As the flows are made for.
    pub(super) in_force: f64,
}

/// The parts of the zones, in their order.
pub(super) fn demand(zones: &[&NodeZone], previous: &ZonesState) -> Vec<Demand> {
    let measured = measured(zones, previous);
    let before = |zone: &&NodeZone| previous.zones.get(&zone.zone);
    let same_zones = zones.len() == previous.zones.len() && zones.iter().all(|zone| before(zone).is_some());
    if !same_zones {
        return measured.into_iter().map(|share| Demand { seen: share, in_force: share }).collect();
    }
    let flows = || zones.iter().filter_map(before);
    let seen = flows().zip(&measured).map(|(flow, now)| flow.seen + SMOOTHING * (now - flow.seen));
    let seen = normalised(seen.collect());
    let moved: f64 =
        flows().zip(&seen).map(|(flow, seen)| (seen - flow.demand_share).abs()).sum::<f64>() / 2.0;
    let follows = moved >= DEAD_BAND;
    flows()
        .zip(&seen)
        .map(|(flow, seen)| Demand { seen: *seen, in_force: if follows { *seen } else { flow.demand_share } })
        .collect()
}

/// What is measured, with a floor. Where nothing is, what was seen before stays, and a zone of which nothing is known
/// counts by its Envoys.
fn measured(zones: &[&NodeZone], previous: &ZonesState) -> Vec<f64> {
    let told = |zone: &&NodeZone| {
        zone.requests_per_second.filter(|rps| rps.is_finite() && (0.0..=MOST_RPS).contains(rps))
    };
    let seen = |zone: &&NodeZone| previous.zones.get(&zone.zone).map(|flow| flow.seen);
    let told_rps: f64 = zones.iter().filter_map(told).sum();
    let of_told: f64 = zones.iter().filter(|zone| told(zone).is_some()).filter_map(seen).sum();
    // Requests/s, as far as anybody tells of any: what was seen of the others is worth as much as of those who tell.
    let known = |zone: &&NodeZone| match told(zone) {
        _ if told_rps <= 0.0 => seen(zone),
        Some(rps) => Some(rps),
        None => seen(zone).filter(|_| of_told > 0.0).map(|seen| seen * told_rps / of_told),
    };
    let known: Vec<Option<f64>> = zones.iter().map(known).collect();
    let envoys = |zone: &NodeZone| f64::from(zone.envoys.max(1));
    let (mut sum, mut envoys_of_known) = (0.0, 0.0);
    for (zone, known) in zones.iter().zip(&known) {
        if let Some(known) = known {
            sum += known;
            envoys_of_known += envoys(zone);
        }
    }
    let of_one = if sum > 0.0 { sum / envoys_of_known } else { 1.0 };
    let raw = zones.iter().zip(&known).map(|(zone, known)| known.unwrap_or(of_one * envoys(zone)));
    let measured = normalised(raw.collect());
    let by_envoys = normalised(zones.iter().map(|zone| envoys(zone)).collect());
    normalised(
        measured.iter().zip(by_envoys).map(|(share, by_envoys)| share.max(FLOOR * by_envoys)).collect(),
    )
}

fn normalised(parts: Vec<f64>) -> Vec<f64> {
    let sum: f64 = parts.iter().sum();
    if sum > 0.0 {
        parts.iter().map(|part| part / sum).collect()
    } else {
        vec![1.0 / parts.len().max(1) as f64; parts.len()]
    }
}
