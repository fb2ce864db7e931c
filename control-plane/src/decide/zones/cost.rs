use std::collections::{BTreeMap, BTreeSet};

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
        let from: Vec<&Zone> = zones.iter().map(|zone| &zone.zone).collect();
        let to: Vec<&Zone> = groups.iter().map(|(group, _)| &group.zone).collect();
        let row = |(from, rules): (&&Zone, Vec<Option<Closest>>)| {
            let times = to.iter().zip(rules).map(|(to, rule)| rtt_ms(input, from, to, rule));
            times.map(microseconds).collect()
        };
        Self {
            microseconds: from.iter().zip(closest(&input.rtt, &from, &to)).map(row).collect(),
            from: from.iter().map(|zone| zone.to_string()).collect(),
            to: to.iter().map(|zone| zone.to_string()).collect(),
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

/// The rules that say how far any of these zones of Envoys is from any of these places; all others change nothing.
pub fn rules_in_play(rules: &[LatencyRule], from: &[&Zone], to: &[&Zone]) -> Vec<LatencyRule> {
    let closest = closest(rules, from, to);
    let in_play: BTreeSet<usize> = closest.into_iter().flatten().flatten().map(|rule| rule.index).collect();
    in_play.into_iter().map(|index| rules[index].clone()).collect()
}

/// A rule for two places.
#[derive(Clone, Copy)]
struct Closest {
    /// How closely it names them, and whether in the wanted direction.
    closeness: (u8, bool),
    ms: f64,
    index: usize,
}

/// The round-trip time between two zones: none within a zone; else by the closest rule; else the default.
fn rtt_ms(input: &ZonesInput, from: &Zone, to: &Zone, rule: Option<Closest>) -> f64 {
    if from == to {
        return SAME_ZONE_MS;
    }
    let default = || {
        let is_near = from.region() == to.region();
        let (configured, usual) = if is_near {
            (input.same_region_ms, SAME_REGION_MS)
        } else {
            (input.other_region_ms, OTHER_REGION_MS)
        };
        within(configured).unwrap_or(usual)
    };
    rule.map_or_else(default, |rule| rule.ms)
}

/// The closest rule from each place to each other: the one of the wanted direction first, of equals the shortest. Each rule
/// is looked at once, and only at the places that it names.
fn closest(rules: &[LatencyRule], from: &[&Zone], to: &[&Zone]) -> Vec<Vec<Option<Closest>>> {
    let mut table: Vec<Vec<Option<Closest>>> = vec![vec![None; to.len()]; from.len()];
    let (rows, columns) = (Named::new(from), Named::new(to));
    for (index, rule) in rules.iter().enumerate() {
        let Some(ms) = within(rule.ms) else { continue };
        for (start, end, is_ahead) in [(&rule.from, &rule.to, true), (&rule.to, &rule.from, false)] {
            let ((rows, of_rows), (columns, of_columns)) = (rows.by(start), columns.by(end));
            let found = Closest { closeness: (of_rows + of_columns, is_ahead), ms, index };
            for row in rows {
                for column in columns.iter().filter(|column| from[*row] != to[**column]) {
                    let cell = &mut table[*row][*column];
                    let is_closer = cell.is_none_or(|known| {
                        let order = found.closeness.cmp(&known.closeness);
                        order.then_with(|| known.ms.total_cmp(&found.ms)).is_gt()
                    });
                    if is_closer {
                        *cell = Some(found);
                    }
                }
            }
        }
    }
    table
}

/// Places by what a rule may call them.
struct Named<'a> {
    regions: BTreeMap<&'a str, Vec<usize>>,
    zones: BTreeMap<&'a str, BTreeMap<&'a str, Vec<usize>>>,
}

impl<'a> Named<'a> {
    fn new(places: &[&'a Zone]) -> Self {
        let mut named = Self { regions: BTreeMap::new(), zones: BTreeMap::new() };
        for (index, place) in places.iter().enumerate() {
            named.regions.entry(place.region()).or_default().push(index);
            let of_region = named.zones.entry(place.region()).or_default();
            of_region.entry(place.name()).or_default().push(index);
        }
        named
    }

    /// The places that a rule's end names, and how closely: 1 by their region, 2 by themselves.
    fn by(&self, end: &str) -> (&[usize], u8) {
        let (found, closeness) = match end.split_once('/') {
            Some((region, zone)) => (self.zones.get(region).and_then(|zones| zones.get(zone)), 2),
            None => (self.regions.get(end), 1),
        };
        (found.map_or(&[], Vec::as_slice), closeness)
    }
}

fn within(ms: f64) -> Option<f64> {
    (ms.is_finite() && ms >= 0.0).then(|| ms.min(LONGEST_MS))
}
