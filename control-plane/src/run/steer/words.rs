use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::decide::WeightDecision;
use crate::view::Change;

use super::{PublishedGroup, members};

/// A change of a backend's share below this is not worth a line.
const NOTABLE: f64 = 0.005;

/// What moved between the shares that were published and those decided; backends that change their group are named.
pub(super) fn changes(
    before: &BTreeMap<SocketAddr, f64>,
    groups: &[PublishedGroup],
    decision: &WeightDecision,
) -> Vec<Change> {
    let group_of: BTreeMap<SocketAddr, &str> = groups
        .iter()
        .flat_map(|group| group.members.keys().map(|address| (*address, group.name.as_str())))
        .collect();
    let mut changes: Vec<Change> = decision
        .backends
        .iter()
        .filter(|backend| {
            let is_regrouped = group_of.get(&backend.address).is_some_and(|name| *name != backend.group);
            let share = before.get(&backend.address);
            is_regrouped || share.is_none_or(|share| (share - backend.share).abs() >= NOTABLE)
        })
        .map(|backend| Change {
            target: backend.address.to_string(),
            from: before.get(&backend.address).copied(),
            to: Some(backend.share),
            reason: backend.reason.clone(),
        })
        .collect();
    let is_gone = |address: &SocketAddr| {
        decision.backends.binary_search_by_key(address, |backend| backend.address).is_err()
    };
    changes.extend(before.iter().filter(|(address, _)| is_gone(address)).map(|(address, share)| Change {
        target: address.to_string(),
        from: Some(*share),
        to: None,
        reason: "takes no new requests".to_owned(),
    }));
    changes
}

/// A decision in one line.
pub(super) fn summary(
    joined_or_left: bool,
    before: &[PublishedGroup],
    after: &[PublishedGroup],
    changes: &[Change],
    decision: &WeightDecision,
) -> String {
    if joined_or_left {
        return membership_summary(&members(before), &members(after));
    }
    let size = |change: &Change| (change.to.unwrap_or(0.0) - change.from.unwrap_or(0.0)).abs();
    let Some(largest) = changes.iter().max_by(|left, right| size(left).total_cmp(&size(right))) else {
        return format!("{} shares moved by less than 1 %", decision.backends.len());
    };
    format!(
        "{} {:.0} % → {:.0} %: {}",
        largest.target,
        100.0 * largest.from.unwrap_or(0.0),
        100.0 * largest.to.unwrap_or(0.0),
        largest.reason
    )
}

type Members<'a> = BTreeMap<SocketAddr, (&'a str, bool)>;

fn membership_summary(before: &Members<'_>, after: &Members<'_>) -> String {
    if before.is_empty() {
        return format!(
            "{} backends take requests",
            after.values().filter(|(_, draining)| !draining).count()
        );
    }
    let mut parts = Vec::new();
    let mut say = |what: &str, found: Vec<String>| {
        if !found.is_empty() {
            parts.push(format!("{} {what}", found.join(", ")));
        }
    };
    let drains = |set: &Members<'_>, address: &SocketAddr| set.get(address).map(|(_, draining)| *draining);
    let takes = |set: &Members<'_>, address: &SocketAddr| drains(set, address) == Some(false);
    let names = |filter: &dyn Fn(&SocketAddr) -> bool| {
        before
            .keys()
            .chain(after.keys().filter(|key| !before.contains_key(key)))
            .filter(|a| filter(a))
            .map(ToString::to_string)
            .collect()
    };
    say("takes requests", names(&|address| takes(after, address) && !takes(before, address)));
    say(
        "is draining",
        names(&|address| drains(after, address) == Some(true) && drains(before, address) != Some(true)),
    );
    let pool = |set: &Members<'_>, address: &SocketAddr| set.get(address).map(|(pool, _)| (*pool).to_owned());
    let moved = |address: &SocketAddr| {
        before.contains_key(address)
            && after.contains_key(address)
            && pool(before, address) != pool(after, address)
    };
    say("is in another pool", names(&moved));
    say("left", names(&|address| !after.contains_key(address)));
    parts.join("; ")
}
