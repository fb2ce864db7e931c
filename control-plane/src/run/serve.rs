use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use axum::http::header::AUTHORIZATION;
use axum::middleware;
use chrono::Utc;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{
    Metrics as XdsMetrics, ServeError, ServerOptions, TransportMetrics, TransportOptions, XdsServer,
};

use crate::api::{ApiState, BoundToken, Token, router};
use crate::compile::BearerToken;
use crate::config::{self, Config};
use crate::discovery::{self, DiscoveryMetrics};
use crate::envoy::{Collector, EnvoyMetrics, Sampler, gateway_of};
use crate::learn::{self, Learner};
use crate::metrics::ControlMetrics;
use crate::push::{Directory, Intake, PushMetrics, PushTokens, Surface};
use crate::signal::{
    Deliverer, DeliveryOptions, DeliveryOutcome, DeliveryReport, Secret, SignalMetrics, WebhookEndpoint,
};
use crate::store::{DatabaseSettings, EmbeddedSettings, Store};
use crate::telemetry::{
    ScrapeOptions, Scraper, TelemetryMetrics, install_crypto_provider, page_certificates, page_token,
};

use super::controller::{Controller, Inputs, Outputs};
use super::database;
use super::envoys::{EnvoyServices, Intakes};
use super::journal::Journal;
use super::reload;

/// Outcomes of scrapes that may wait for the controller; beyond it the scraper drops and counts them.
const OUTCOMES: usize = 20_000;
const COMMANDS: usize = 1000;
/// Load reports and seconds of access logs that may wait for the controller.
const ENVOY_NEWS: usize = 1000;
const UNDELIVERED: usize = 1000;
/// Answers of DNS that may wait for the controller; beyond it the lookups wait.
const LOOKED: usize = 100;
/// Longest time for open connections to end after a signal to stop.
const GRACE: Duration = Duration::from_secs(5);
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
    let config = overrides.apply(config::load(&path)?);
    config::check(&config).map_err(|faults| anyhow::anyhow!("{faults}"))?;
    let config = Arc::new(config);
    let token = token(&config)?;
    let api_listener = bind(config.listen.api, "listen.api").await?;
    let xds_listener = bind(config.listen.xds, "listen.xds").await?;
    let stop = CancellationToken::new();
    let mut registry = Registry::default();

    let live_config = Arc::new(ArcSwap::from(Arc::clone(&config)));
    let xds = xds_server(&live_config, &mut registry);
    let intakes = Intakes::new(&mut registry)?;
    let envoy_metrics = EnvoyMetrics::register(&mut registry);
    let mut transport = TransportOptions::default();
    transport.metrics = TransportMetrics::register(&mut registry);
    transport.drain = XDS_DRAIN;
    let telemetry = TelemetryMetrics::register(&mut registry);
    let (outcomes_in, outcomes) = mpsc::channel(OUTCOMES);
    page_secrets(&config)?;
    let push_listeners = push_listeners(&config).await?;
    let directory = Arc::new(ArcSwap::from_pointee(Directory::default()));
    let (intake, assembly) = Intake::new(
        &config.telemetry.push,
        push_tokens(&config)?,
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
    let (journal, journal_task) = Journal::spawn(store.clone());
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
    let collector = Collector::new(Arc::clone(&live_config), news, envoy_metrics.clone());
    let sampler = Sampler::new(
        f64::from(config.telemetry.access_log.max_entries_per_second),
        u64::from(std::process::id()),
    );
    let services = intakes.collect(collector, sampler, stop.clone());
    let outputs = Outputs {
        xds: xds.clone(),
        load_reports: services.load_reports.clone(),
        envoy_metrics,
        log_token: token.as_ref().map(|token| BearerToken::new(token.shown())),
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
    let mut controller = tokio::spawn(controller.run(inputs, stop.clone()));

    tokio::spawn(scraper.run(stop.clone()));
    tokio::spawn(assembly.run(stop.clone()));
    for (surface, listener) in push_listeners {
        tokio::spawn(intake.clone().serve(listener, surface, stop.clone()));
    }
    tokio::spawn(watching);
    tokio::spawn({
        let stop = stop.clone();
        async move { deliverer.run(stop).await }
    });
    tokio::spawn(reload::watch(path, overrides, reloads_in, stop.clone()));
    let api_server = tokio::spawn({
        let stop = stop.clone();
        async move { axum::serve(api_listener, router(api)).with_graceful_shutdown(stop.cancelled_owned()).await }
    });
    let mut xds_server =
        tokio::spawn(serve_xds(xds.clone(), services.clone(), xds_listener, token, transport, stop.clone()));
    tracing::info!(api = %config.listen.api, xds = %config.listen.xds, "clairvoy is up");

    // A part that ends by itself takes the process with it: half a control plane would freeze the weights unseen.
    let ended = tokio::select! {
        ended = until_signal(first_error, config.database.url.is_none()) => ended,
        _ = &mut controller => Err(anyhow::anyhow!("the controller ended by itself")),
        _ = &mut xds_server => Err(anyhow::anyhow!("the discovery server ended by itself")),
    };
    tracing::info!("stopping");
    xds.drain();
    services.shutdown();
    stop.cancel();
    let graceful = async {
        if !controller.is_finished() {
            let _ = controller.await;
        }
        let _ = journal_task.await;
        let _ = database.await;
        if !xds_server.is_finished() {
            let _ = xds_server.await;
        }
    };
    if tokio::time::timeout(GRACE * 2, graceful).await.is_err() {
        tracing::warn!("some work was not done in time");
    }
    if tokio::time::timeout(Duration::from_secs(1), api_server).await.is_err() {
        tracing::debug!("live streams of the dashboard were cut");
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

async fn bind(address: SocketAddr, field: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} ({field}); is another process there? set {field} in the configuration"
        )
    })
}

/// The addresses where senders push telemetry.
async fn push_listeners(config: &Config) -> anyhow::Result<Vec<(Surface, TcpListener)>> {
    let push = &config.telemetry.push;
    let mut listeners = Vec::new();
    if let Some(address) = push.otlp_grpc {
        listeners.push((Surface::Grpc, bind(address, "telemetry.push.otlp_grpc").await?));
    }
    if let Some(address) = push.http {
        listeners.push((Surface::Http, bind(address, "telemetry.push.http").await?));
    }
    Ok(listeners)
}

/// The tokens of senders that the configuration names, from the environment.
fn push_tokens(config: &Config) -> anyhow::Result<PushTokens> {
    let mut tokens = PushTokens::default();
    for sender in &config.telemetry.push.tokens {
        let token = token_of(&sender.token_env, "telemetry.push.tokens")?;
        tokens.add(token, sender.pools.iter().cloned());
    }
    Ok(tokens)
}

/// The token that the configuration names, from the environment.
fn token(config: &Config) -> anyhow::Result<Option<Token>> {
    config.listen.token_env.as_ref().map(|name| token_of(name, "listen.token_env")).transpose()
}

/// The tokens that are good for some pools only.
fn pool_tokens(config: &Config) -> anyhow::Result<Vec<BoundToken>> {
    let tokens = config.listen.tokens.iter();
    tokens
        .map(|bound| {
            let token = token_of(&bound.token_env, "listen.tokens")?;
            Ok(BoundToken { token, pools: bound.pools.clone() })
        })
        .collect()
}

fn token_of(name: &str, field: &str) -> anyhow::Result<Token> {
    const SHORTEST: usize = 16;
    match std::env::var(name) {
        Ok(text) if text.len() >= SHORTEST => Ok(Token::new(&text)),
        Ok(_) => bail!("environment variable {name} ({field}) holds less than {SHORTEST} characters"),
        Err(_) => bail!("environment variable {name} ({field}) is not set"),
    }
}

/// Checks that the secrets which the configuration names are there and usable.
pub fn check_secrets(config: &Config) -> anyhow::Result<()> {
    token(config)?;
    push_tokens(config)?;
    pool_tokens(config)?;
    page_secrets(config)?;
    endpoints(config).map(drop)
}

/// Reads what scraped pages ask for.
fn page_secrets(config: &Config) -> anyhow::Result<()> {
    for pool in &config.pools {
        let read = page_token(&pool.metrics_access).and(page_certificates(&pool.metrics_access).map(drop));
        read.map_err(|error| anyhow::anyhow!("metrics_access of pool {}: {error}", pool.name))?;
    }
    Ok(())
}

fn endpoints(config: &Config) -> anyhow::Result<Vec<WebhookEndpoint>> {
    let mut endpoints = Vec::new();
    for webhook in &config.signals.webhooks {
        let name = &webhook.secret_env;
        let text = std::env::var(name)
            .with_context(|| format!("environment variable {name} (secret_env of a webhook) is not set"))?;
        let secret = Secret::parse(&text).with_context(|| format!("the secret in {name} is not usable"))?;
        endpoints.push(WebhookEndpoint { url: webhook.url.clone(), secret });
    }
    Ok(endpoints)
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

/// The discovery server; an Envoy belongs to the gateway that names its `node.cluster`, or to the one that names none.
fn xds_server(config: &Arc<ArcSwap<Config>>, registry: &mut Registry) -> XdsServer {
    let config = Arc::clone(config);
    let options = ServerOptions::new(move |node| {
        gateway_of(&config.load(), &node.cluster).map(|gateway| gateway.name.into())
    });
    XdsServer::with_metrics(options, XdsMetrics::register(registry))
}

/// Serves discovery, load reports and access logs until `stop`, and then sends the proxies elsewhere, one after the other.
async fn serve_xds(
    xds: XdsServer,
    services: EnvoyServices,
    listener: TcpListener,
    token: Option<Token>,
    options: TransportOptions,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let routes = xds
        .routes()
        .add_service(services.load_reports.load_reporting_service())
        .add_service(services.access_logs.access_log_service());
    let routes = routes.into_axum_router().layer(middleware::from_fn(
        move |request: axum::extract::Request, next: middleware::Next| {
            let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
            let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
            let may_pass = match (&token, shown) {
                (None, _) => true,
                (Some(token), Some(shown)) => token.is(shown),
                (Some(_), None) => false,
            };
            async move {
                if may_pass {
                    return next.run(request).await;
                }
                let message = "the token of listen.token_env is needed as a bearer token";
                tonic::Status::unauthenticated(message).into_http()
            }
        },
    ));
    clairvoy_xds::serve(listener, routes.into(), options, stop.cancelled_owned()).await
}
