use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::decide::Zone;
use crate::discovery::Looked;
use crate::envoy::{BackendLog, LogSummary, NodeLoad};
use crate::fleet::Registration;
use crate::learn::Lesson;
use crate::telemetry::{Limits, Sample};

use super::super::commands::Refusal;
use super::{Core, Effect, decisive};

/// What moves the core, apart from what the learner finds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Input {
    /// A backend showed itself: when that was taken in, and what.
    Sample { at: DateTime<Utc>, sample: Box<Sample> },
    /// A backend's engine goes this far: comes before a sample or a failure, when it is another limit than the last.
    Limits { backend: SocketAddr, limits: Limits },
    /// A scrape failed: whether the connection was refused, or none when nothing came back at all.
    Failure { backend: SocketAddr, refused: Option<bool>, message: String },
    /// The last plan of a pool reached no autoscaler: the next tick tells it again, unless the pool is as planned by then.
    Undelivered { pool: String },
    /// DNS said something of a pool.
    Looked { at: DateTime<Utc>, looked: Looked },
    /// An Envoy reported its load.
    Load(NodeLoad),
    /// Envoys told a second of access logs.
    Log { at: DateTime<Utc>, summary: LogSummary },
    /// Other Envoys are connected than before the last tick, or they are asked to report at another interval.
    Connected {
        nodes: BTreeSet<String>,
        report_seconds: u64,
        /// How many of them there are in each zone that is known.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        zones: Vec<(Zone, u32)>,
    },
    /// An operator or the API wants something.
    Order { at: DateTime<Utc>, order: Order },
    /// Another configuration is in force.
    Config { at: DateTime<Utc>, config: Arc<Config> },
    /// A second has passed.
    Tick { at: DateTime<Utc> },
}

/// What the API asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// Add a backend to a pool, or take one back that was draining.
    Register { pool: String, address: SocketAddr },
    /// Add a backend to a pool for a time, or renew that time.
    Lease { pool: String, address: SocketAddr, length: TimeDelta },
    /// Stop new requests to a backend.
    Drain { pool: String, address: SocketAddr },
    /// Stop new requests to a backend and remove it after the drain time.
    Remove { pool: String, address: SocketAddr },
    /// Have predictions steer the canary of a model again.
    ResumeCanary { model: String },
    /// Imported demand: model, number of the first step, requests/s by step.
    Learn { histories: Vec<(String, i64, Vec<Option<f64>>)> },
}

impl Input {
    /// Whether it may decide something, by what the learner has found so far.
    pub(crate) fn evaluates(&self) -> bool {
        matches!(self, Self::Looked { .. } | Self::Order { .. } | Self::Config { .. } | Self::Tick { .. })
    }

    /// What is written down of it: all that decides. What is reported of endpoints and groups, and requests and errors in
    /// logs, are only shown; of a backend's answers, that there were any, how long they took, and their tokens.
    pub(crate) fn as_recorded(&self) -> Self {
        match self {
            Self::Load(load) => Self::Load(NodeLoad {
                node_id: load.node_id.clone(),
                zone: load.zone.clone(),
                at: load.at,
                models: load.models.clone(),
                endpoints: Vec::new(),
                groups: Vec::new(),
            }),
            Self::Log { at, summary } => {
                let decisive = |log: &BackendLog| BackendLog {
                    requests: 1.0,
                    responses: log.responses,
                    tokens: log.tokens,
                    first_bytes: log.first_bytes.clone(),
                    ..BackendLog::default()
                };
                let backends = summary.backends.iter().filter(|(_, log)| log.has_answers());
                let backends = backends.map(|(address, log)| (*address, decisive(log))).collect();
                let LogSummary { seconds, unplaced, lanes, parts, .. } = summary.clone();
                Self::Log { at: *at, summary: LogSummary { seconds, backends, unplaced, lanes, parts } }
            }
            Self::Config { at, config } => Self::Config { at: *at, config: Arc::new(decisive(config)) },
            other => other.clone(),
        }
    }
}

impl Core {
    /// Takes an input; tells what a registration with a lease came to.
    ///
    /// # Errors
    /// An order that the fleet refuses; nothing has changed then.
    pub(crate) fn take(&mut self, input: Input) -> Result<Option<Registration>, Refusal> {
        match input {
            Input::Sample { at, sample } => self.sample(*sample, at),
            Input::Limits { backend, limits } => {
                if let Some(backend) = self.fleet.backend_mut(backend) {
                    backend.limits = limits;
                }
            }
            Input::Failure { backend, refused, message } => {
                self.fleet.observe_failure(backend, refused, message);
            }
            Input::Undelivered { pool } => {
                self.signalled.remove(&pool);
            }
            Input::Looked { at, looked } => self.looked(looked, at),
            Input::Load(load) => {
                self.hear_zone(&load);
                self.fleet.observe_load(&load);
            }
            Input::Log { at, summary } => self.logged(&summary, at),
            Input::Connected { nodes, report_seconds, zones } => {
                self.connected = nodes;
                self.zones.count(zones);
                self.fleet.set_report_interval(report_seconds as f64);
            }
            Input::Order { at, order } => return self.obey(order, at),
            Input::Config { at, config } => self.adopt(config, at),
            Input::Tick { at } => self.tick(at),
        }
        Ok(None)
    }

    fn sample(&mut self, sample: Sample, now: DateTime<Utc>) {
        let Ok(address) = sample.backend.parse() else { return };
        if self.fleet.observe(address, sample.clone(), now)
            && let Some(class) = self.class(address)
        {
            self.teach(Lesson::Sample(address, class, Box::new(sample)));
        }
    }

    fn tick(&mut self, now: DateTime<Utc>) {
        self.pass_time(now);
        self.sweep(now);
        self.fleet.look_at_reports(&self.connected, now);
        self.look_at_zones(now);
        self.close_steps(now);
        self.look_at_classes(now);
        self.judge(now);
        self.teach(Lesson::Tick(now));
        self.decide(now);
    }

    /// Takes another configuration, and decides by it from the next input on.
    pub(crate) fn replace(&mut self, config: Arc<Config>, now: DateTime<Utc>) {
        self.config = config;
        self.discovered.retain(&Arc::clone(&self.config));
        self.reconcile(now);
    }

    fn adopt(&mut self, config: Arc<Config>, now: DateTime<Utc>) {
        self.note("info", "the configuration was reloaded".to_owned());
        self.replace(config, now);
        self.decide(now);
        // Gateways, timeouts and names change without any decision about backends.
        if self.has_begun {
            self.effects.push(Effect::Publish);
        }
    }
}
