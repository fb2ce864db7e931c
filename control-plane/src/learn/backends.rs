use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use clairvoy_forecaster::{AnomalyWatch, PaceLaw, judge};

use crate::envoy::FirstBytes;
use crate::telemetry::Sample;

use super::{Class, Insight, ModelKind, anomaly, capacity, wait};

/// Backends whose wait model is fitted anew within one tick: bounds the time that a tick takes.
const MOST_WAIT_FITS_A_TICK: usize = 20;
/// Backends whose capacity and anomaly models are kept in the database within one tick, for the same reason.
const MOST_KEPT_A_TICK: usize = 20;
/// Time between two of these, seconds: a capacity is some 40 KiB, and learns of six windows of load a minute.
const KEEP_EVERY_SECONDS: f64 = 300.0;

/// What is learned of single backends, and of classes of them.
#[derive(Default)]
pub(super) struct Backends {
    known: BTreeMap<SocketAddr, Lessons>,
    /// How the pace of tokens depends on load, by pool. Learned anew within a minute of a start, so it is not saved.
    laws: BTreeMap<String, PaceLaw>,
}

/// The models of one backend.
#[derive(Default)]
struct Lessons {
    class: Option<Arc<Class>>,
    wait: wait::Lessons,
    capacity: capacity::Lessons,
    anomaly: anomaly::Lessons,
    /// When capacity and anomaly were kept, or when the first sample came.
    kept_at: Option<DateTime<Utc>>,
}

/// What is watched at one backend, as far as decisions depend on it.
#[derive(Serialize, Deserialize)]
pub(super) struct Watched {
    class: Option<Class>,
    kept: anomaly::Kept,
}

impl Backends {
    /// Backends of which only that is known which decisions depend on.
    pub(super) fn resume(
        waits: impl IntoIterator<Item = (SocketAddr, wait::Lessons)>,
        watched: impl IntoIterator<Item = (SocketAddr, Watched)>,
    ) -> Self {
        let known =
            waits.into_iter().map(|(address, wait)| (address, Lessons { wait, ..Lessons::default() }));
        let mut known: BTreeMap<_, _> = known.collect();
        for (address, Watched { class, kept }) in watched {
            let lessons = known.entry(address).or_default();
            lessons.class = class.map(Arc::new);
            lessons.anomaly = anomaly::Lessons::resume(kept);
        }
        Self { known, laws: BTreeMap::new() }
    }

    pub(super) fn waits(&self) -> impl Iterator<Item = (SocketAddr, &wait::Lessons)> {
        self.known.iter().map(|(address, lessons)| (*address, &lessons.wait))
    }

    pub(super) fn watched(&self) -> impl Iterator<Item = (SocketAddr, Watched)> {
        self.known.iter().map(|(address, lessons)| {
            let class = lessons.class.as_deref().cloned();
            (*address, Watched { class, kept: lessons.anomaly.kept() })
        })
    }

    pub(super) fn observe(
        &mut self,
        address: SocketAddr,
        class: &Arc<Class>,
        sample: &Sample,
    ) -> Vec<Insight> {
        let lessons = self.known.entry(address).or_default();
        lessons.join(class);
        lessons.kept_at.get_or_insert(sample.at);
        let (wait, residual) = lessons.wait.observe(sample);
        if !self.laws.contains_key(&class.pool) {
            self.laws.insert(class.pool.clone(), PaceLaw::default());
        }
        if let Some(law) = self.laws.get_mut(&class.pool) {
            lessons.anomaly.observe(sample, residual, law);
        }
        let mut insights = vec![Insight::Wait(address, sample.at, wait)];
        if let Some(capacity) = lessons.capacity.observe(sample, &class.target) {
            insights.push(Insight::Capacity(address, capacity));
        }
        insights
    }

    pub(super) fn observe_first_bytes(&mut self, address: SocketAddr, first_bytes: &[FirstBytes]) {
        // Before a backend has shown itself, nothing was asked that this could answer.
        if let Some(lessons) = self.known.get_mut(&address) {
            first_bytes.iter().for_each(|first| lessons.wait.observe_first_bytes(first));
        }
    }

    pub(super) fn forget(&mut self, address: SocketAddr) {
        self.known.remove(&address);
    }

    /// Takes up the saved state of one of a backend's models.
    pub(super) fn restore(
        &mut self,
        kind: ModelKind,
        key: &str,
        state: serde_json::Value,
    ) -> Result<(), String> {
        let address = key.parse().map_err(|_| "no address".to_owned())?;
        let lessons = self.known.entry(address).or_default();
        match kind {
            ModelKind::Wait => lessons.wait = wait::Lessons::restore(state)?,
            ModelKind::Capacity => lessons.capacity = capacity::Lessons::restore(state)?,
            ModelKind::Anomaly => lessons.anomaly = anomaly::Lessons::restore(state)?,
            ModelKind::Demand | ModelKind::Fleet => {}
        }
        Ok(())
    }

    pub(super) fn tick(&mut self, now: DateTime<Utc>) -> Vec<Insight> {
        let mut insights = self.fit_waits(now);
        self.keep(now, &mut insights);
        self.compare(now, &mut insights);
        insights
    }

    fn fit_waits(&mut self, now: DateTime<Utc>) -> Vec<Insight> {
        let mut due: Vec<_> = self.known.iter_mut().filter(|(_, lessons)| lessons.wait.is_due(now)).collect();
        due.sort_by_key(|(_, lessons)| lessons.wait.fitted_at());
        let fit = |(address, lessons): (&SocketAddr, &mut Lessons)| {
            let state = lessons.wait.refit(now)?;
            Some(trained(ModelKind::Wait, *address, state, now))
        };
        due.into_iter().take(MOST_WAIT_FITS_A_TICK).filter_map(fit).collect()
    }

    fn keep(&mut self, now: DateTime<Utc>, insights: &mut Vec<Insight>) {
        let mut due: Vec<_> =
            self.known.iter_mut().filter(|(_, lessons)| lessons.is_to_be_kept(now)).collect();
        due.sort_by_key(|(_, lessons)| lessons.kept_at);
        for (address, lessons) in due.into_iter().take(MOST_KEPT_A_TICK) {
            lessons.kept_at = Some(now);
            for (kind, state) in [
                (ModelKind::Capacity, lessons.capacity.state()),
                (ModelKind::Anomaly, lessons.anomaly.state()),
            ] {
                insights.extend(state.map(|state| trained(kind, *address, state, now)));
            }
        }
    }

    /// Judges every backend beside those of its pool.
    fn compare(&mut self, now: DateTime<Utc>, insights: &mut Vec<Insight>) {
        let mut pools: BTreeMap<&str, Vec<(SocketAddr, &AnomalyWatch)>> = BTreeMap::new();
        for (address, lessons) in &self.known {
            if let Some(class) = &lessons.class
                && let Some(watch) = lessons.anomaly.fresh(now)
            {
                pools.entry(&class.pool).or_default().push((*address, watch));
            }
        }
        let mut verdicts = Vec::new();
        for members in pools.values() {
            let watches: Vec<&AnomalyWatch> = members.iter().map(|(_, watch)| *watch).collect();
            verdicts.extend(members.iter().map(|(address, _)| *address).zip(judge(&watches)));
        }
        // A pool without fresh samples is gone, or starts over when it is back.
        self.laws.retain(|pool, _| pools.contains_key(pool.as_str()));
        for (address, verdict) in verdicts {
            let Some(lessons) = self.known.get_mut(&address) else { continue };
            let anomaly::Changed { findings, signs } = lessons.anomaly.judged(&verdict, now);
            insights.extend(findings.map(|findings| Insight::Anomaly(address, findings)));
            insights.extend(signs.map(|signs| Insight::Signs(address, signs)));
        }
    }
}

impl Lessons {
    /// Notes the class. What was learned in another pool says nothing in this one, except how the backend makes wait.
    fn join(&mut self, class: &Arc<Class>) {
        if self.class.as_ref().is_some_and(|before| before.pool != class.pool) {
            self.capacity = capacity::Lessons::default();
            self.anomaly = anomaly::Lessons::default();
        }
        self.class = Some(Arc::clone(class));
    }

    fn is_to_be_kept(&self, now: DateTime<Utc>) -> bool {
        self.kept_at.is_some_and(|at| (now - at).as_seconds_f64() >= KEEP_EVERY_SECONDS)
    }
}

fn trained(kind: ModelKind, address: SocketAddr, state: serde_json::Value, at: DateTime<Utc>) -> Insight {
    Insight::Trained { kind, key: address.to_string(), state, at }
}
