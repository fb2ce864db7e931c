//! The core: everything that decides, as plain state. Inputs come in one by one, each with its time, and effects go out;
//! no clock, no I/O, no randomness. The controller feeds it live, and `replay` from a file: same inputs, same effects.

mod canary;
mod checkpoint;
mod decide;
mod discovered;
mod envoys;
mod fleet;
mod input;
mod intents;
mod learned;
mod memory;
mod reliance;
mod shed;
mod zones;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{DemandForecast, Standing};

use crate::config::Config;
use crate::decide::PoolPlan;
use crate::fleet::{Fleet, NodeZones, Origin};
use crate::learn::{Class, Lesson};
use crate::signal::ReplicaPlanEvent;
use crate::store::DecisionRow;

use super::journal::Entry;
use super::steer::Steering;

pub(super) use canary::CANARY;
use canary::Canary;
pub(crate) use canary::explain_canary;
pub(crate) use checkpoint::{Checkpoint, Pending, decisive};
pub(super) use discovered::{Discovered, MEMBERSHIP, WEIGHTS};
pub(crate) use input::{Input, Order};
pub(super) use intents::static_groups;
pub(super) use learned::PROFILE;
use reliance::Reliance;
use shed::Shed;
pub(crate) use shed::explain_shed;

/// What decides, and all that it remembers.
pub(crate) struct Core {
    pub(super) config: Arc<Config>,
    pub(super) fleet: Fleet,
    pub(super) discovered: Discovered,
    /// `node.id`s of the connected Envoys that belong to a gateway.
    pub(super) connected: BTreeSet<String>,
    /// Where they are, and what arrives there.
    zones: NodeZones,
    /// What the learner is to know of each pool.
    classes: BTreeMap<String, Arc<Class>>,
    pub(super) steering: BTreeMap<String, Steering>,
    /// How far Envoys may rely on it.
    pub(super) reliance: BTreeMap<String, Reliance>,
    /// Whether it does any good, where predictions steer a part only.
    canaries: BTreeMap<String, Canary>,
    /// What is refused of it.
    sheds: BTreeMap<String, Shed>,
    forecasts: BTreeMap<String, Issued>,
    pub(super) plans: BTreeMap<String, PoolPlan>,
    /// Replicas last signalled, by pool.
    signalled: BTreeMap<String, u32>,
    started_at: DateTime<Utc>,
    /// Whether it has decided yet: it waits for the first answers of DNS.
    pub(super) has_begun: bool,
    /// Time of the last decision, and how many were made at that time: a part of their ids.
    numbered: (DateTime<Utc>, u16),
    /// Backends about which orders came before what the last run left; none once that is known.
    ordered: Option<BTreeSet<SocketAddr>>,
    effects: Vec<Effect>,
}

/// What an input leads to; carried out in this order.
#[derive(Debug)]
pub(crate) enum Effect {
    /// The learner is to know this.
    Teach(Lesson),
    /// This was decided.
    Decided(Box<DecisionRow>),
    /// To be written down.
    Journal(Entry),
    /// The autoscalers are to be told.
    Signal(ReplicaPlanEvent),
    /// Backends came or went: what is scraped changes.
    Members,
    /// Weights or members changed: the Envoys are to be told.
    Publish,
    /// An operator should know: level and message.
    Note(&'static str, String),
    /// To be counted in the metrics of discovery.
    Count(Counted),
}

/// What is counted of discovery.
#[derive(Debug)]
pub(crate) enum Counted {
    /// A lookup for a pool, by outcome.
    Looked(String, &'static str),
    /// A backend that lies outside the networks of its pool, by who named it.
    Refused(String, Origin),
    /// A request to register a backend in a pool, by outcome.
    Registration(String, &'static str),
    /// A lease in a pool that was over.
    Expired(String),
}

/// A forecast and when it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::run) struct Issued {
    pub(super) at: DateTime<Utc>,
    pub(super) forecast: DemandForecast,
    /// How those before it have done.
    pub(super) standings: Vec<Standing>,
}

impl Core {
    pub(crate) fn new(config: Arc<Config>, now: DateTime<Utc>) -> Self {
        Self {
            config,
            fleet: Fleet::default(),
            discovered: Discovered::default(),
            connected: BTreeSet::new(),
            zones: NodeZones::default(),
            classes: BTreeMap::new(),
            steering: BTreeMap::new(),
            reliance: BTreeMap::new(),
            canaries: BTreeMap::new(),
            sheds: BTreeMap::new(),
            forecasts: BTreeMap::new(),
            plans: BTreeMap::new(),
            signalled: BTreeMap::new(),
            started_at: now,
            has_begun: false,
            numbered: (now, 0),
            ordered: Some(BTreeSet::new()),
            effects: Vec::new(),
        }
    }

    /// What the inputs since the last call led to.
    pub(crate) fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    fn teach(&mut self, lesson: Lesson) {
        self.effects.push(Effect::Teach(lesson));
    }

    fn count(&mut self, counted: Counted) {
        self.effects.push(Effect::Count(counted));
    }

    fn note(&mut self, level: &'static str, message: String) {
        self.effects.push(Effect::Note(level, message));
    }
}

#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod registration_tests;
