use super::input::{GroupTotal, LatencyRule, NodeZone, ZonesInput};
use super::{OTHER_REGION_MS, SAME_REGION_MS, SAME_ZONE_MS, Zone};

/// Longer ones count as this long, milliseconds.
const LONGEST_MS: f64 = 10_000.0;

/// Round-trip times from zones of Envoys to groups, microseconds.
pub(super) struct Costs {
    microseconds: Vec<Vec<i64>>,
    /// What is shown of a zone and a group: names by which ties are broken.
    pub(super) from: Vec<String>,
    pub(super) to: Vec<String>,
}

impl Costs {
    pub(super) fn new(input: &ZonesInput, zones: &[&NodeZone], groups: &[(&GroupTotal, f64)]) -> Self {
        let row = |from: &&NodeZone| {
            let cost = |(to, _): &(&GroupTotal, f64)| microseconds(rtt_ms(input, &from.zone, &to.zone));
            groups.iter().map(cost).collect()
        };
        Self {
            microseconds: zones.iter().map(row).collect(),
            from: zones.iter().map(|zone| zone.zone.to_string()).collect(),
            to: groups.iter().map(|(group, _)| group.zone.to_string()).collect(),
        }
    }

    pub(super) fn row(&self, zone: usize) -> &[i64] {
        &self.microseconds[zone]
    }

    pub(super) fn milliseconds(&self, zone: usize, group: usize) -> f64 {
        self.microseconds[zone][group] as f64 / 1000.0
    }
}

fn microseconds(ms: f64) -> i64 {
    (1000.0 * ms).round() as i64
}

/// The round-trip time between two zones: none within a zone; else the closest rule, the one of the wanted direction first,
/// of equals the shortest; else the default.
fn rtt_ms(input: &ZonesInput, from: &Zone, to: &Zone) -> f64 {
    if from == to {
        return SAME_ZONE_MS;
    }
    let fits = |rule: &LatencyRule| {
        let ahead = closeness(&rule.from, from).zip(closeness(&rule.to, to)).map(|(a, b)| (a + b, true));
        let back = closeness(&rule.from, to).zip(closeness(&rule.to, from)).map(|(a, b)| (a + b, false));
        Some((ahead.max(back)?, within(rule.ms)?))
    };
    let best = input.rtt.iter().filter_map(fits).max_by(|(left, left_ms), (right, right_ms)| {
        left.cmp(right).then_with(|| right_ms.total_cmp(left_ms))
    });
    let default = || {
        let is_near = from.region() == to.region();
        let (configured, usual) = if is_near {
            (input.same_region_ms, SAME_REGION_MS)
        } else {
            (input.other_region_ms, OTHER_REGION_MS)
        };
        within(configured).unwrap_or(usual)
    };
    best.map_or_else(default, |(_, ms)| ms)
}

/// How closely a rule's end names a zone: 1 as its region, 2 as itself.
fn closeness(end: &str, zone: &Zone) -> Option<u8> {
    match end.split_once('/') {
        Some((region, name)) => (region == zone.region() && name == zone.name()).then_some(2),
        None => (end == zone.region()).then_some(1),
    }
}

fn within(ms: f64) -> Option<f64> {
    (ms.is_finite() && ms >= 0.0).then(|| ms.min(LONGEST_MS))
}
