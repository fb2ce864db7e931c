use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use chrono::Utc;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{TransportMetrics, TransportOptions};

use crate::api::{ApiState, router};
use crate::compile::BearerToken;
use crate::config::{self, Config};
use crate::discovery::{self, DiscoveryMetrics};
use crate::envoy::{Collector, ComparedSince, EnvoyMetrics, Sampler};
use crate::learn::{self, Learner};
use crate::metrics::ControlMetrics;
use crate::push::{Directory, Intake, PushMetrics};
use crate::signal::{Deliverer, DeliveryOptions, DeliveryOutcome, DeliveryReport, SignalMetrics};
use crate::store::{DatabaseSettings, EmbeddedSettings, Store};
use crate::telemetry::{ScrapeOptions, Scraper, TelemetryMetrics, install_crypto_provider};

use super::controller::{Controller, Inputs, Leave, Outputs};
use super::database;
use super::envoys::Intakes;
use super::files::raise_limit;
use super::journal::Journal;
use super::listen::{Door, ZoneGroups, bind, push_listeners, serve_xds, xds_server};
use super::parts::Parts;
use super::reload;
use super::secrets::{endpoints, page_secrets, pool_tokens, push_senders, token};
use super::serve_api::serve_api;
use super::tls::{self, TlsMetrics};

/// Outcomes of scrapes that may wait for the controller; beyond it the scraper drops and counts them.
const OUTCOMES: usize = 20_000;
const COMMANDS: usize = 1000;
/// Load reports and seconds of access logs that may wait for the controller.
const ENVOY_NEWS: usize = 1000;
const UNDELIVERED: usize = 1000;
/// Answers of DNS that may wait for the controller; beyond it the lookups wait.
const LOOKED: usize = 100;
/// Longest time for the parts to end after a signal to stop: the controller takes the last telemetry (4 s) and writes it, or
/// puts it into the spool (5 s and 3 s).
const STOPPING: Duration = Duration::from_secs(13);
/// Longest time after that for the journal to write what waits.
const LAST_JOURNAL: Duration = Duration::from_secs(5);
/// Longest time for the database to let go.
const GRACE: Duration = Duration::from_secs(5);
/// Longest time to tell Envoys that they are to go by capacity shares.
const STEP_DOWN: Duration = Duration::from_secs(3);
/// After what silence an Envoy is asked whether it is there, and how long it may take to answer.
const XDS_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));
/// The time over which proxies are sent to other replicas.
const XDS_DRAIN: Duration = Duration::from_secs(2);

/// What the environment or the command line says instead of the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// Instead of `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// Instead of `database.url`.
    pub database_url: Option<String>,
    /// Instead of `listen.api`.
    pub api: Option<SocketAddr>,
    /// Instead of `listen.xds`.
    pub xds: Option<SocketAddr>,
}

impl Overrides {
    /// The configuration with the overrides in it.
    pub fn apply(&self, mut config: Config) -> Config {
        config.data_dir = self.data_dir.clone().or(config.data_dir);
        config.database.url = self.database_url.clone().or(config.database.url);
        config.listen.api = self.api.unwrap_or(config.listen.api);
        config.listen.xds = self.xds.unwrap_or(config.listen.xds);
        config
    }
}

/// Where and how to reach the database of a configuration.
pub fn database_settings(config: &Config) -> DatabaseSettings {
    let embedded =
        EmbeddedSettings { data_dir: config.data_dir(), postgres_bin: config.database.postgres_bin.clone() };
    DatabaseSettings { url: config.database.url.clone(), ..DatabaseSettings::embedded(embedded) }
}

/// Runs the control plane until SIGINT or SIGTERM.
pub async fn serve(path: PathBuf, overrides: Overrides) -> anyhow::Result<()> {
    install_crypto_provider();
    raise_limit();
    let config = overrides.apply(config::load(&path)?);
    config::check(&config).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let config = Arc::new(config);
    let token = token(&config)?;
    let certificates = tls::Listeners::open(&config)?;
    for warning in config.clear_text_warnings() {
        tracing::warn!("{warning}");
    }
    let api_listener = bind(config.listen.api, "listen.api").await?;
    let xds_listener = bind(config.listen.xds, "listen.xds").await?;
    let stop = CancellationToken::new();
    let mut registry = Registry::default();

    let live_config = Arc::new(ArcSwap::from(Arc::clone(&config)));
    let zone_groups = ZoneGroups::default();
    let xds = xds_server(&live_config, &zone_groups, &mut registry);
    let intakes = Intakes::new(&mut registry, &config.telemetry)?;
    let envoy_metrics = EnvoyMetrics::register(&mut registry);
    let mut transport = TransportOptions::default();
    transport.metrics = TransportMetrics::register(&mut registry);
    transport.drain = XDS_DRAIN;
    // An Envoy that is out of reach has gone over to capacity shares by the time that it is back.
    (transport.keepalive_interval, transport.keepalive_timeout) = XDS_KEEPALIVE;
    transport.tls = certificates.xds.clone();
    transport.max_connections = config.listen.max_connections;
    transport.max_connections_per_peer = config.listen.max_connections_per_peer;
    let tls_metrics = TlsMetrics::register(&mut registry);
    let telemetry = TelemetryMetrics::register(&mut registry);
    let (outcomes_in, outcomes) = mpsc::channel(OUTCOMES);
    page_secrets(&config)?;
    let push_listeners = push_listeners(&config).await?;
    let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
    let (intake, assembly) = Intake::new(
        &config.telemetry.push,
        push_senders(&config)?,
        Arc::clone(&directory),
        outcomes_in.clone(),
        PushMetrics::register(&mut registry),
        telemetry.clone(),
    );
    let (targets, targets_out) = watch::channel(Arc::default());
    let options = ScrapeOptions {
        interval: config.telemetry.interval.0,
        deadline: config.telemetry.deadline.0,
        max_page_bytes: config.telemetry.max_page_bytes,
        ..ScrapeOptions::default()
    };
    let scraper = Scraper::new(options, targets_out, outcomes_in, telemetry.clone())?;
    let (learner, insights) = learn::spawn(Learner::new(&config.forecast))?;
    let (undelivered_in, undelivered) = mpsc::channel(UNDELIVERED);
    let deliverer = deliverer(&config, &mut registry, undelivered_in)?;

    let (store_in, store) = watch::channel(None::<Store>);
    let (memory_in, memory) = oneshot::channel();
    let (first_error_in, first_error) = oneshot::channel();
    let (journal, writing) = Journal::spawn(store.clone());
    let database = tokio::spawn(database::keep_open(
        database_settings(&config),
        Arc::clone(&config),
        store_in,
        memory_in,
        first_error_in,
        stop.clone(),
    ));
    let (commands_in, commands) = mpsc::channel(COMMANDS);
    let (reloads_in, reloads) = mpsc::channel(1);
    let (frames_in, frames) = watch::channel(None);
    let metrics = ControlMetrics::register(&mut registry);
    let discovery = DiscoveryMetrics::register(&mut registry);
    let (looked_in, looked) = mpsc::channel(LOOKED);
    let api = ApiState {
        frames,
        commands: commands_in,
        store: store.clone(),
        registry: Arc::new(registry),
        config: Arc::clone(&live_config),
        token: token.clone(),
        pool_tokens: pool_tokens(&config)?.into(),
        discovery: discovery.clone(),
    };
    let watching =
        discovery::watch(Arc::clone(&live_config), looked_in, u64::from(std::process::id()), stop.clone());
    let (news, envoys) = mpsc::channel(ENVOY_NEWS);
    let compared_since = ComparedSince::default();
    let collector = Collector::new(Arc::clone(&live_config), news, envoy_metrics.clone())
        .with_orca(intake.clone())
        .comparing(Arc::clone(&compared_since));
    let sampler = Sampler::new(
        f64::from(config.telemetry.access_log.max_entries_per_second),
        u64::from(std::process::id()),
    );
    let (services, mut collecting) = intakes.collect(collector, sampler, stop.clone());
    let outputs = Outputs {
        xds: xds.clone(),
        zone_groups: Arc::clone(&zone_groups),
        compared_since,
        load_reports: services.load_reports.clone(),
        envoy_metrics,
        // Envoys that are known by their certificates never see the token.
        log_token: token
            .as_ref()
            .filter(|_| !config.listen.knows_envoys())
            .map(|token| BearerToken::new(token.shown())),
        config: live_config,
        targets,
        push: directory,
        learner,
        journal,
        deliverer: deliverer.clone(),
        frames: frames_in,
        metrics,
        discovery,
        telemetry,
    };
    let inputs = Inputs {
        outcomes,
        insights,
        commands,
        reloads,
        looked,
        memory,
        store: store.clone(),
        undelivered,
        envoys,
        clients: xds.events(),
    };
    let controller = Controller::new(Arc::clone(&config), outputs, Utc::now());
    let mut parts = Parts::default();
    let leave = Leave::default();
    parts.spawn("the controller", controller.run(inputs, leave.clone(), stop.clone()));
    parts.spawn("the scraper", scraper.run(stop.clone()));
    parts.spawn("the assembly of pushed telemetry", assembly.run(stop.clone()));
    for (surface, listener) in push_listeners {
        let served = intake.clone().serve(listener, surface, certificates.push(surface), stop.clone());
        parts.spawn("the intake of pushed telemetry", served);
    }
    // The assembly ends with the last of those who take telemetry in.
    drop(intake);
    parts.spawn("discovery of backends", watching);
    parts.spawn("the delivery of webhooks", {
        let stop = stop.clone();
        async move { deliverer.run(stop).await }
    });
    parts.spawn("the watch of the configuration", reload::watch(path, overrides, reloads_in, stop.clone()));
    parts.spawn("the server of the API", {
        let (config, tls, stop) = (Arc::clone(&config), certificates.api.clone(), stop.clone());
        async move { serve_api(api_listener, tls, router(api), &config.listen, stop).await }
    });
    parts.spawn("the watch of certificates", tls::watch(certificates, tls_metrics, stop.clone()));
    let door = Door { listen: config.listen.clone(), token, zone_groups };
    parts.try_spawn("the discovery server", {
        let served = serve_xds(xds.clone(), services.clone(), xds_listener, door, transport, stop.clone());
        async move { Ok(served.await?) }
    });
    tracing::info!(api = %config.listen.api, xds = %config.listen.xds, "clairvoy is up");

    // A part that ends by itself takes the process with it: half a control plane would freeze the weights unseen.
    let ended = tokio::select! {
        ended = until_signal(first_error, config.database.url.is_none()) => ended,
        error = parts.ended() => Err(error),
        _ = collecting.join_next() => Err(anyhow::anyhow!("the reading of what Envoys tell ended by itself")),
    };
    tracing::info!("stopping");
    // While all else still runs. The controller bounds its wait; one that hangs is not waited for.
    leave.leave.cancel();
    let _ = tokio::time::timeout(STEP_DOWN, leave.left.cancelled()).await;
    xds.drain();
    services.shutdown();
    stop.cancel();
    if tokio::time::timeout(STOPPING, parts.finish()).await.is_err() {
        tracing::warn!(parts = ?parts.running(), "some work was not done in time");
    }
    // After the controller, whose last entries are written, too.
    let (entries, kept_up) =
        tokio::join!(writing.finish(LAST_JOURNAL), tokio::time::timeout(LAST_JOURNAL, database));
    if entries > 0 {
        tracing::warn!(entries, "the last entries of the journal were not written, and are lost");
    }
    if kept_up.is_err() {
        tracing::warn!("the upkeep of the database was not done in time");
    }
    let open = store.borrow().clone();
    drop(store);
    if let Some(open) = open {
        match tokio::time::timeout(GRACE, open.close()).await {
            Ok(closed) => closed.context("cannot close the database")?,
            Err(_) => tracing::warn!("the database did not let go in time"),
        }
    }
    ended
}

/// Waits for a signal to stop; an embedded database that cannot start is a reason to stop at once.
async fn until_signal(
    first_error: oneshot::Receiver<crate::store::StoreError>,
    embedded: bool,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let failed = async {
        match first_error.await {
            Ok(error) if embedded => error,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
        error = failed => Err(anyhow::Error::new(error).context("the embedded database does not start")),
    }
}

fn deliverer(
    config: &Config,
    registry: &mut Registry,
    undelivered: mpsc::Sender<String>,
) -> anyhow::Result<Deliverer> {
    let seed = u64::from(std::process::id());
    let options = DeliveryOptions { seed, ..DeliveryOptions::default() };
    let log = move |report: DeliveryReport| {
        if matches!(
            report.outcome,
            DeliveryOutcome::Failed | DeliveryOutcome::Expired | DeliveryOutcome::Dropped
        ) {
            // When the controller is that far behind, the plan will change before it could be told again.
            let _ = undelivered.try_send(report.pool.clone());
        }
        tracing::info!(event.id = %report.event_id, pool = report.pool, endpoint = %report.endpoint,
            outcome = ?report.outcome, detail = report.detail, "webhook");
    };
    Deliverer::new(endpoints(config)?, options, SignalMetrics::register(registry), log)
        .context("a webhook cannot be used")
}
