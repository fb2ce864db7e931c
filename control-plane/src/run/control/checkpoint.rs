use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{DemandForecast, Standing, WaitForecast};

use crate::config::{Config, Telemetry};
use crate::decide::{PoolPlan, Signs};
use crate::fleet::{Fleet, NodeZones};
use crate::learn::Insight;

use super::super::steer::Steering;
use super::canary::Canary;
use super::learned::classes;
use super::reliance::Reliance;
use super::shed::Shed;
use super::{Core, Discovered, Issued};

/// All that the core remembers, apart from what is only shown. The learner's part is kept beside it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint<'a> {
    config: Cow<'a, Config>,
    fleet: Cow<'a, Fleet>,
    discovered: Cow<'a, Discovered>,
    connected: Cow<'a, BTreeSet<String>>,
    #[serde(default)]
    zones: Cow<'a, NodeZones>,
    steering: Cow<'a, BTreeMap<String, Steering>>,
    #[serde(default)]
    reliance: Cow<'a, BTreeMap<String, Reliance>>,
    #[serde(default)]
    canaries: Cow<'a, BTreeMap<String, Canary>>,
    #[serde(default)]
    sheds: Cow<'a, BTreeMap<String, Shed>>,
    forecasts: Cow<'a, BTreeMap<String, Issued>>,
    plans: Cow<'a, BTreeMap<String, PoolPlan>>,
    signalled: Cow<'a, BTreeMap<String, u32>>,
    started_at: DateTime<Utc>,
    has_begun: bool,
    numbered: (DateTime<Utc>, u16),
}

/// What the learner had found, and the core had not taken in yet, at a checkpoint; only what decisions depend on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pending {
    /// A predicted wait.
    Wait(SocketAddr, DateTime<Utc>, WaitForecast),
    /// A forecast of demand.
    Forecast(String, Box<DemandForecast>, Vec<Standing>),
    /// Scores of what is found of a backend.
    Signs(SocketAddr, Signs),
}

impl Pending {
    /// The finding, when decisions depend on it.
    pub(crate) fn of(insight: &Insight) -> Option<Self> {
        match insight {
            Insight::Wait(address, at, wait) => Some(Self::Wait(*address, *at, *wait)),
            Insight::Forecast(model, forecast, standings) => {
                Some(Self::Forecast(model.clone(), Box::new(forecast.clone()), standings.clone()))
            }
            Insight::Signs(address, signs) => Some(Self::Signs(*address, *signs)),
            _ => None,
        }
    }
}

impl From<Pending> for Insight {
    fn from(pending: Pending) -> Self {
        match pending {
            Pending::Wait(address, at, wait) => Self::Wait(address, at, wait),
            Pending::Forecast(model, forecast, standings) => Self::Forecast(model, *forecast, standings),
            Pending::Signs(address, signs) => Self::Signs(address, signs),
        }
    }
}

/// The parts of a configuration that decisions depend on: addresses, folders and receivers of webhooks are left out. How often
/// backends are read decides how old their telemetry may be.
pub(crate) fn decisive(config: &Config) -> Config {
    let Telemetry { interval, deadline, .. } = config.telemetry;
    Config {
        forecast: config.forecast.clone(),
        balance: config.balance.clone(),
        zones: config.zones.clone(),
        models: config.models.clone(),
        pools: config.pools.clone(),
        telemetry: Telemetry { interval, deadline, ..Telemetry::default() },
        ..Config::default()
    }
}

impl Core {
    /// All that it remembers now.
    pub(crate) fn checkpoint(&self) -> Checkpoint<'_> {
        Checkpoint {
            config: Cow::Owned(decisive(&self.config)),
            fleet: Cow::Borrowed(&self.fleet),
            discovered: Cow::Borrowed(&self.discovered),
            connected: Cow::Borrowed(&self.connected),
            zones: Cow::Borrowed(&self.zones),
            steering: Cow::Borrowed(&self.steering),
            reliance: Cow::Borrowed(&self.reliance),
            canaries: Cow::Borrowed(&self.canaries),
            sheds: Cow::Borrowed(&self.sheds),
            forecasts: Cow::Borrowed(&self.forecasts),
            plans: Cow::Borrowed(&self.plans),
            signalled: Cow::Borrowed(&self.signalled),
            started_at: self.started_at,
            has_begun: self.has_begun,
            numbered: self.numbered,
        }
    }

    /// Goes on from a checkpoint.
    pub(crate) fn resume(checkpoint: Checkpoint<'_>) -> Self {
        let config = Arc::new(checkpoint.config.into_owned());
        Self {
            classes: classes(&config),
            config,
            fleet: checkpoint.fleet.into_owned(),
            discovered: checkpoint.discovered.into_owned(),
            connected: checkpoint.connected.into_owned(),
            zones: checkpoint.zones.into_owned(),
            steering: checkpoint.steering.into_owned(),
            reliance: checkpoint.reliance.into_owned(),
            canaries: checkpoint.canaries.into_owned(),
            sheds: checkpoint.sheds.into_owned(),
            forecasts: checkpoint.forecasts.into_owned(),
            plans: checkpoint.plans.into_owned(),
            signalled: checkpoint.signalled.into_owned(),
            started_at: checkpoint.started_at,
            has_begun: checkpoint.has_begun,
            numbered: checkpoint.numbered,
            ordered: None,
            effects: Vec::new(),
        }
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> &Arc<Config> {
        &self.config
    }
}
