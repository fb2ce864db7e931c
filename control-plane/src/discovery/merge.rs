use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Answer, LookupFailure};

/// What is known of a pool's discovered backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The backends that are wanted, and since when the newest good answer lacks them.
    pub backends: BTreeMap<SocketAddr, Option<DateTime<Utc>>>,
    /// Since when no good answer has come, and why.
    pub stale: Option<(DateTime<Utc>, LookupFailure)>,
    /// Whether backends that are missing are kept for a while, because more than half went at once.
    pub holding: bool,
}

/// The outcome of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// What is known now; its backends are wanted.
    pub found: Found,
    /// Backends that are new.
    pub came: BTreeSet<SocketAddr>,
    /// Backends that are no longer wanted: they drain.
    pub went: BTreeSet<SocketAddr>,
    /// Whether this answer began a time without good answers.
    pub became_stale: bool,
    /// Whether this answer ended such a time.
    pub recovered: bool,
    /// Whether this answer began to hold backends that are missing.
    pub began_to_hold: bool,
}

/// What follows from an answer, or, without one, from the time that has passed.
///
/// A failure or an empty answer changes no backend. A good one adds what is new, and drains what it lacks: at once, or,
/// from the moment on when more than half of the backends are missing until none is, each after it has been missing
/// for `hold`. So backends that were wanted stay wanted until a good answer names others.
pub fn merge(previous: &Found, answer: Option<&Answer>, hold: Duration, now: DateTime<Utc>) -> Merged {
    let mut found = previous.clone();
    match answer {
        Some(Answer::Failed(failure)) => go_stale(&mut found, failure.clone(), now),
        Some(Answer::Backends(listed)) if listed.is_empty() => {
            go_stale(&mut found, LookupFailure::Empty("the name".to_owned()), now);
        }
        Some(Answer::Backends(listed)) => {
            found.stale = None;
            for (address, missing_since) in &mut found.backends {
                let is_missing = !listed.contains(address);
                *missing_since = is_missing.then(|| missing_since.unwrap_or(now));
            }
            let missing = found.backends.values().flatten().count();
            found.holding = missing > 0 && (previous.holding || missing * 2 > found.backends.len());
            for address in listed {
                found.backends.entry(*address).or_insert(None);
            }
        }
        None => {}
    }
    // While nobody tells who is there, nobody goes.
    if found.stale.is_none() {
        let holding = found.holding;
        let stays = |since: Option<DateTime<Utc>>| {
            since.is_none_or(|since| holding && (now - since).to_std().unwrap_or_default() < hold)
        };
        if found.backends.values().any(|since| since.is_none()) {
            found.backends.retain(|_, since| stays(*since));
        }
        found.holding = holding && found.backends.values().any(Option::is_some);
    }
    let known = |state: &Found| state.backends.keys().copied().collect::<BTreeSet<_>>();
    let (before, after) = (known(previous), known(&found));
    Merged {
        came: &after - &before,
        went: &before - &after,
        became_stale: found.stale.is_some() && previous.stale.is_none(),
        recovered: found.stale.is_none() && previous.stale.is_some(),
        began_to_hold: found.holding && !previous.holding,
        found,
    }
}

fn go_stale(found: &mut Found, failure: LookupFailure, now: DateTime<Utc>) {
    let since = found.stale.as_ref().map_or(now, |(since, _)| *since);
    found.stale = Some((since, failure));
}
