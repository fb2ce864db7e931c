use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::FutureExt as _;
use serde::Deserialize as _;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use clairvoy_forecaster::DemandForecaster;

use crate::config::Config;
use crate::learn::ModelKind;
use crate::store::{DatabaseSettings, RegisteredBackend, Store, StoreError};

/// Seasons of demand history that are read back at start.
const SEASONS: i32 = 15;
/// How long before a saved model was saved its newest step may lie: two steps of an hour.
const OVERLAP: TimeDelta = TimeDelta::hours(2);
/// Models that are learned of each backend.
const OF_BACKENDS: [ModelKind; 3] = [ModelKind::Wait, ModelKind::Capacity, ModelKind::Anomaly];
/// How long it may take to read what the last run left: models of thousands of backends, from a slow disk.
const REMEMBERING: Duration = Duration::from_secs(300);
const PAUSE: Duration = Duration::from_secs(5);

/// What the last run left behind.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) registered: Vec<RegisteredBackend>,
    /// Found backends and lengths of leases, by pool.
    pub(super) membership: Vec<(String, serde_json::Value)>,
    /// What the backends of each pool have in common.
    pub(super) profiles: Vec<(String, serde_json::Value)>,
    /// Telemetry rows ever written.
    pub(super) telemetry_rows: u64,
    /// Saved models of demand and of backends: kind, key, state.
    pub(super) models: Vec<(ModelKind, String, serde_json::Value)>,
    /// Published weights: model, when, state.
    pub(super) weights: Vec<(String, DateTime<Utc>, serde_json::Value)>,
    /// Whether the canaries have stepped back: model, state.
    pub(super) canaries: Vec<(String, serde_json::Value)>,
    /// Demand history: model, first step, requests/s by step.
    pub(super) demand: Vec<(String, i64, Vec<Option<f64>>)>,
}

/// Opens the database, however long that takes, hands over what it remembers, and keeps it in order.
pub(super) async fn keep_open(
    settings: DatabaseSettings,
    config: Arc<Config>,
    store: watch::Sender<Option<Store>>,
    memory: oneshot::Sender<Memory>,
    first_error: oneshot::Sender<StoreError>,
    stop: CancellationToken,
) {
    let mut first_error = Some(first_error);
    let open = loop {
        match Store::open(settings.clone()).await {
            Ok(open) => break open,
            Err(error) => {
                tracing::error!(%error, "cannot open the database; trying again");
                // Told once: an embedded server that cannot start is the operator's to mend at once.
                if let Some(told) = first_error.take() {
                    let _ = told.send(error);
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    };
    let remembered = loop {
        let started = Instant::now();
        match timeout(REMEMBERING, remember(&open, &config, Utc::now()).boxed()).await {
            Ok(Ok(remembered)) => {
                let (models, seconds) = (remembered.models.len(), started.elapsed().as_secs_f64());
                tracing::info!(models, seconds, "read what the last run left");
                break remembered;
            }
            Ok(Err(error)) => tracing::error!(%error, "cannot read what the last run left; trying again"),
            Err(_) => tracing::error!("the database does not tell what the last run left; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    };
    let _ = memory.send(remembered);
    store.send_replace(Some(open.clone()));
    open.run_maintenance(config.database.retention.days(), stop).await;
}

async fn remember(store: &Store, config: &Config, now: DateTime<Utc>) -> Result<Memory, StoreError> {
    let rows = store.telemetry_rows().await?;
    let mut memory = Memory {
        registered: store.registered_backends().await?,
        telemetry_rows: u64::try_from(rows).unwrap_or_default(),
        ..Memory::default()
    };
    let models: Vec<String> = config.models.iter().map(|model| model.name.clone()).collect();
    let pools: Vec<String> = config.pools.iter().map(|pool| pool.name.clone()).collect();
    let (mut weights, mut demand, fleet, membership, profiles, canaries) = tokio::try_join!(
        store.newest_model_states(super::control::WEIGHTS, Some(&models)),
        store.newest_model_states(ModelKind::Demand.as_str(), Some(&models)),
        store.newest_model_states(ModelKind::Fleet.as_str(), None),
        store.newest_model_states(super::control::MEMBERSHIP, Some(&pools)),
        store.newest_model_states(super::control::PROFILE, Some(&pools)),
        store.newest_model_states(super::control::CANARY, Some(&models)),
    )?;
    memory.models.extend(fleet.into_iter().map(|(key, saved)| (ModelKind::Fleet, key, saved.state)));
    memory.membership = membership.into_iter().map(|(pool, saved)| (pool, saved.state)).collect();
    memory.canaries = canaries.into_iter().map(|(model, saved)| (model, saved.state)).collect();
    memory.profiles = profiles.into_iter().map(|(pool, saved)| (pool, saved.state)).collect();
    let grid = config.forecast.in_steps();
    for model in &config.models {
        if let Some(saved) = weights.remove(&model.name) {
            memory.weights.push((model.name.clone(), saved.trained_at, saved.state));
        }
        let saved = demand.remove(&model.name);
        // A model that can be used knows all that was known when it was saved.
        // One of another version or grid is refused later on, and the whole history is needed in its place.
        let usable = saved.as_ref().filter(|saved| {
            let forecaster = DemandForecaster::deserialize(&saved.state);
            forecaster.is_ok_and(|forecaster| *forecaster.config() == grid)
        });
        let since = usable.map(|saved| saved.trained_at - OVERLAP);
        let (first_step, values) = demand_history(store, config, &model.name, since, now).await?;
        memory.demand.push((model.name.clone(), first_step, values));
        if let Some(saved) = saved {
            memory.models.push((ModelKind::Demand, model.name.clone(), saved.state));
        }
    }
    let configured = config.pools.iter().flat_map(|pool| pool.backends.iter().map(ToString::to_string));
    let registered = memory.registered.iter().map(|backend| backend.address.clone());
    let found = memory.membership.iter().filter_map(|(_, state)| state.get("found")?.as_array());
    let found = found.flatten().filter_map(|address| address.as_str().map(str::to_owned));
    let addresses: Vec<String> = configured.chain(registered).chain(found).collect();
    for kind in OF_BACKENDS {
        // Of a fleet that changes, most of the saved models are about backends that are gone.
        let saved = store.newest_model_states(kind.as_str(), Some(&addresses)).await?;
        memory.models.extend(saved.into_iter().map(|(address, saved)| (kind, address, saved.state)));
    }
    Ok(memory)
}

/// A model's demand of the last seasons, or of those after `since`, on the forecast grid, gaps as `None`: number of the first step, and values.
pub(crate) async fn demand_history(
    store: &Store,
    config: &Config,
    model: &str,
    since: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(i64, Vec<Option<f64>>), StoreError> {
    let step = i64::try_from(config.forecast.step.0.as_secs().max(1)).unwrap_or(i64::MAX);
    let span = TimeDelta::from_std(config.forecast.season.0).unwrap_or(TimeDelta::MAX) * SEASONS;
    let rows = store
        .demand(model, u32::try_from(step).unwrap_or(u32::MAX), since.unwrap_or(now - span), now)
        .await?;
    let index = |at: DateTime<Utc>| at.timestamp().div_euclid(step);
    let Some(first) = rows.first().map(|row| index(row.at)) else { return Ok((index(now), Vec::new())) };
    let last = rows.last().map_or(first, |row| index(row.at));
    let mut values = vec![None; usize::try_from(last - first + 1).unwrap_or_default()];
    for row in &rows {
        if let Some(value) = usize::try_from(index(row.at) - first).ok().and_then(|at| values.get_mut(at)) {
            *value = Some(row.requests_per_second);
        }
    }
    Ok((first, values))
}
