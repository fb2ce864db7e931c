//! The cheapest flows, as a transportation problem.
//!
//! Places of equal cost are put together first and share what they get in proportion, so that equals are treated alike.
//! What ties are left are broken by a small addition to each cost that depends on the names only: then there is one
//! cheapest solution, and it changes no faster than what it is asked for.

use std::collections::BTreeMap;

use super::cost::Costs;
use super::steps::Flows;
use super::transport::least_cost;

/// The least part of a zone's requests that goes to each group, and of all groups together: so Envoy knows every group, and
/// one that takes over is in use already. A group that has less gets what it has.
const LEAST_PART: f64 = 0.01;
const LEAST_PARTS: f64 = 0.1;
/// All requests together, as whole numbers: sums are exact.
const UNITS: u64 = 1 << 30;
/// Bits of a cost below a microsecond, of which ties use the lower part: a path has at most 2 x 64 arcs.
const TIE_SHIFT: u32 = 28;
const TIE_MASK: u64 = (1 << 20) - 1;

/// The cheapest flows for the demand of zones and the shares of groups, each of sum 1.
pub(super) fn cheapest(demand: &[f64], shares: &[f64], costs: &Costs) -> Flows {
    let least = LEAST_PART.min(LEAST_PARTS / shares.len().max(1) as f64);
    let kept: Vec<f64> = shares.iter().map(|share| share.min(least)).collect();
    let rest: Vec<f64> = shares.iter().zip(&kept).map(|(share, kept)| share - kept).collect();
    let rest_sum: f64 = rest.iter().sum();

    let rows = classes(demand.len(), |zone| costs.row(zone).to_vec(), |zone| &costs.from[zone]);
    let column = |group: usize| (0..demand.len()).map(|zone| costs.row(zone)[group]).collect();
    let columns = classes(shares.len(), column, |group| &costs.to[group]);
    let sum = |members: &[usize], parts: &[f64]| members.iter().map(|index| parts[*index]).sum::<f64>();
    let supply: Vec<f64> = rows.iter().map(|class| sum(&class.members, demand)).collect();
    let wanted: Vec<f64> = columns.iter().map(|class| sum(&class.members, &rest)).collect();
    let cost = |row: &Class<'_>, column: &Class<'_>| {
        (costs.row(row.members[0])[column.members[0]] << TIE_SHIFT) + tie(row.name, column.name)
    };
    let costs: Vec<Vec<i64>> =
        rows.iter().map(|row| columns.iter().map(|column| cost(row, column)).collect()).collect();
    let units = least_cost(apportioned(&supply, UNITS), apportioned(&wanted, UNITS), &costs);

    let mut flows: Flows =
        demand.iter().map(|demand| kept.iter().map(|kept| demand * kept).collect()).collect();
    for (row, units) in rows.iter().zip(&units) {
        for (column, units) in columns.iter().zip(units) {
            let flow = rest_sum * *units as f64 / UNITS as f64;
            let (row_sum, column_sum) = (sum(&row.members, demand), sum(&column.members, &rest));
            if flow <= 0.0 || row_sum <= 0.0 || column_sum <= 0.0 {
                continue;
            }
            for zone in &row.members {
                for group in &column.members {
                    flows[*zone][*group] += flow * (demand[*zone] / row_sum) * (rest[*group] / column_sum);
                }
            }
        }
    }
    flows
}

/// Zones, or groups, of equal cost.
struct Class<'a> {
    /// The first of their names.
    name: &'a str,
    members: Vec<usize>,
}

fn classes<'a>(
    count: usize,
    key: impl Fn(usize) -> Vec<i64>,
    name: impl Fn(usize) -> &'a String,
) -> Vec<Class<'a>> {
    let mut classes: BTreeMap<Vec<i64>, Class<'a>> = BTreeMap::new();
    for index in 0..count {
        let class = classes
            .entry(key(index))
            .or_insert_with(|| Class { name: name(index).as_str(), members: Vec::new() });
        class.name = class.name.min(name(index).as_str());
        class.members.push(index);
    }
    classes.into_values().collect()
}

/// A small cost that two names have, always the same.
fn tie(from: &str, to: &str) -> i64 {
    // The upper bits are the better mixed ones.
    i64::try_from((hash(from.bytes().chain([0]).chain(to.bytes())) >> 40) & TIE_MASK).unwrap_or(0)
}

/// A number that stands for bytes, always the same (FNV-1a).
pub(super) fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whole numbers in the proportion of parts that add up to `total`: what is left after rounding down goes to the largest
/// remainders.
fn apportioned(parts: &[f64], total: u64) -> Vec<u64> {
    let sum: f64 = parts.iter().sum();
    let exact: Vec<f64> = parts
        .iter()
        .map(|part| total as f64 * if sum > 0.0 { part / sum } else { 1.0 / parts.len() as f64 })
        .collect();
    let mut whole: Vec<u64> = exact.iter().map(|exact| exact.floor() as u64).collect();
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by(|left, right| exact[*right].fract().total_cmp(&exact[*left].fract()));
    let left = total.saturating_sub(whole.iter().sum());
    for index in order.into_iter().cycle().take(if parts.is_empty() { 0 } else { left as usize }) {
        whole[index] += 1;
    }
    whole
}
