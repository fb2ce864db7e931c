mod health;

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::compile::RUNTIME_LAYER;
use crate::config::{self, Config, Model, Pool, PoolTelemetry, Rung};
use crate::run::{Overrides, check_secrets, database_settings};
use crate::store::{EmbeddedError, Store, StoreError};
use crate::telemetry::{PoolTargets, ScrapeOptions, Scraper, TelemetryMetrics, install_crypto_provider};

use super::ConfigFile;

const DATABASE_PATIENCE: Duration = Duration::from_secs(10);
const BACKEND_PATIENCE: Duration = Duration::from_secs(5);
/// Backends that are named one by one when they do not answer.
const NAMED: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
}

/// One line of the list.
struct Finding {
    state: State,
    what: String,
    /// Why it is not good, and how to mend it.
    remedy: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Doubtful,
    Bad,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let good = runtime.block_on(check(&arguments.file));
    println!();
    println!("Status check results are {}", if good { "√" } else { "×" });
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check(file: &ConfigFile) -> bool {
    let overrides = Overrides {
        data_dir: file.data_dir.clone(),
        database_url: file.database_url.clone(),
        ..Overrides::default()
    };
    section("configuration");
    let loaded = config::load(&file.config).map_err(|error| error.to_string()).and_then(|config| {
        let config = overrides.apply(config);
        config::check(&config).map(|()| config)
    });
    let config = match loaded {
        Ok(config) => {
            let what = format!(
                "{} is valid: {} models, {} pools, {} backends",
                file.config.display(),
                config.models.len(),
                config.pools.len(),
                config.pools.iter().map(|pool| pool.backends.len()).sum::<usize>()
            );
            let mut findings = vec![Finding { state: State::Good, what, remedy: None }];
            let logs = config.telemetry.access_log.enabled;
            let limited = config.models.iter().filter(|model| model.rung != Rung::Enforce);
            findings.extend(limited.map(|model| rung(model, logs)));
            findings.push(Finding {
                state: State::Good,
                what: format!(
                    "Envoys take predictions by the runtime layer `{RUNTIME_LAYER}`, which `clairvoy bootstrap` writes; one \
                     without it goes by capacity shares only"
                ),
                remedy: None,
            });
            show(&findings);
            config
        }
        Err(error) => {
            let what = format!("{} can be used", file.config.display());
            show(&[Finding { state: State::Bad, what, remedy: Some(error) }]);
            return false;
        }
    };
    let secrets = match check_secrets(&config) {
        Ok(()) => true,
        Err(error) => {
            let what = "secrets and certificates named by the configuration are there".to_owned();
            show(&[Finding { state: State::Bad, what, remedy: Some(format!("{error:#}")) }])
        }
    };
    section("database");
    let database = show(&[database(&config).await]);
    section("backends");
    let mut found = backends(&config).await;
    found.extend(health::checks(&config).await);
    let backends = show(&found);
    secrets && database && backends
}

/// How far predictions steer a model, where access logs tell how requests fared, or do not.
fn rung(model: &Model, logs: bool) -> Finding {
    let percent = (100.0 * model.steered_part()).round();
    let is_blind = model.rung == Rung::Canary && !logs;
    let remedy = "set telemetry.access_log.enabled: by access logs it is seen that a canary does worse";
    Finding {
        state: if is_blind { State::Doubtful } else { State::Good },
        what: format!(
            "model {} is on the rung {}: predictions steer {percent} % of its requests",
            model.name,
            model.rung.name()
        ),
        remedy: is_blind.then(|| remedy.to_owned()),
    }
}

fn section(name: &str) {
    println!("\n{name}\n{}", "-".repeat(name.len()));
}

/// Prints findings; true when none is bad.
fn show(findings: &[Finding]) -> bool {
    let colour = std::io::stdout().is_terminal();
    for finding in findings {
        let (mark, code) = match finding.state {
            State::Good => ("√", "32"),
            State::Doubtful => ("‼", "33"),
            State::Bad => ("×", "31"),
        };
        let mark = if colour { format!("\x1b[{code}m{mark}\x1b[0m") } else { mark.to_owned() };
        println!("{mark} {}", finding.what);
        for line in finding.remedy.iter().flat_map(|remedy| remedy.lines()) {
            println!("    {line}");
        }
    }
    findings.iter().all(|finding| finding.state != State::Bad)
}

/// A Clairvoy that runs already holds an embedded database: that is good news, not a fault.
async fn database(config: &Config) -> Finding {
    let mut settings = database_settings(config);
    settings.connect_timeout = DATABASE_PATIENCE;
    let embedded = settings.url.is_none();
    let kind = if embedded { "embedded Postgres" } else { "Postgres" };
    let bad = |error: String| Finding {
        state: State::Bad,
        what: format!("{kind} can be used"),
        remedy: Some(error),
    };
    let store = match Store::open(settings).await {
        Ok(store) => store,
        Err(StoreError::Embedded(EmbeddedError::InUse { .. })) => {
            return Finding {
                state: State::Good,
                what: format!("{kind} is in use by a running Clairvoy"),
                remedy: None,
            };
        }
        Err(error) => return bad(error.to_string()),
    };
    let health = store.health().await;
    let closed = store.close().await;
    match (health, closed) {
        (Ok(health), Ok(())) => Finding {
            state: State::Good,
            what: format!(
                "{kind} {} answers in {:.1} ms, {} of {} migrations applied",
                health.server_version,
                1000.0 * health.latency_seconds,
                health.migrations_applied,
                health.migrations_known
            ),
            remedy: None,
        },
        (Err(error), _) | (_, Err(error)) => bad(error.to_string()),
    }
}

/// Tells what can be told of the configured backends.
async fn backends(config: &Config) -> Vec<Finding> {
    let (pushing, scraped): (Vec<&Pool>, Vec<&Pool>) = config
        .pools
        .iter()
        .filter(|pool| !pool.backends.is_empty())
        .partition(|pool| pool.telemetry == PoolTelemetry::Push);
    let mut findings = Vec::new();
    if !pushing.is_empty() {
        let count: usize = pushing.iter().map(|pool| pool.backends.len()).sum();
        let names: Vec<&str> = pushing.iter().map(|pool| pool.name.as_str()).collect();
        let what = format!("{count} backends push their telemetry, which cannot be checked from here");
        findings.push(Finding {
            state: State::Good,
            what,
            remedy: Some(format!("pools: {}", names.join(", "))),
        });
    }
    if !scraped.is_empty() {
        findings.push(scrape(config, &scraped).await);
    }
    if findings.is_empty() {
        findings.push(Finding {
            state: State::Doubtful,
            what: "backends are configured".to_owned(),
            remedy: Some(
                "no pool lists backends: add `backends: [\"ip:port\"]`, or register them through the API"
                    .to_owned(),
            ),
        });
    }
    findings
}

/// Scrapes every listed backend of some pools once, as `serve` would.
async fn scrape(config: &Config, pools: &[&Pool]) -> Finding {
    let addresses: Vec<SocketAddr> = pools.iter().flat_map(|pool| pool.backends.iter().copied()).collect();
    let targets = pools.iter().flat_map(|pool| {
        let targets = PoolTargets::new(pool);
        pool.backends.iter().map(move |address| targets.target(*address)).collect::<Vec<_>>()
    });
    let targets = targets.collect();
    let (_targets, targets) = watch::channel(Arc::new(targets));
    let (outcomes_in, outcomes) = mpsc::channel(addresses.len());
    let metrics = TelemetryMetrics::register(&mut prometheus_client::registry::Registry::default());
    let options = ScrapeOptions {
        interval: config.telemetry.interval.0,
        deadline: config.telemetry.deadline.0,
        max_page_bytes: config.telemetry.max_page_bytes,
        ..ScrapeOptions::default()
    };
    let patience = BACKEND_PATIENCE.max(options.interval + options.deadline);
    let scraper = match Scraper::new(options, targets, outcomes_in, metrics) {
        Ok(scraper) => scraper,
        Err(error) => {
            let what = "backends can be scraped".to_owned();
            return Finding { state: State::Bad, what, remedy: Some(error.to_string()) };
        }
    };
    let stop = CancellationToken::new();
    let scraping = tokio::spawn(scraper.run(stop.clone()));
    let mut failures = std::collections::BTreeMap::new();
    let mut good = BTreeSet::new();
    let mut outcomes = outcomes;
    let all = async {
        // A quick backend answers twice before a slow one does once.
        while good.len() + failures.len() < addresses.len() {
            let Some(outcome) = outcomes.recv().await else { return };
            let backend = outcome.backend.to_string();
            match outcome.result {
                Ok(_) => {
                    failures.remove(&backend);
                    good.insert(backend);
                }
                Err(_) if good.contains(&backend) => {}
                Err(failure) => {
                    failures.insert(backend, failure.to_string());
                }
            }
        }
    };
    let _ = tokio::time::timeout(patience, all).await;
    stop.cancel();
    let _ = scraping.await;
    let good = good.len();
    let what = format!("{good} of {} backends show telemetry", addresses.len());
    if good == addresses.len() {
        return Finding { state: State::Good, what, remedy: None };
    }
    let mut remedy: Vec<String> =
        failures.iter().take(NAMED).map(|(backend, failure)| format!("{backend}: {failure}")).collect();
    if failures.len() > NAMED {
        remedy.push(format!("and {} more", failures.len() - NAMED));
    }
    remedy.push("start them, or check that http://ADDRESS/metrics is reachable from here; until then they get their capacity share".to_owned());
    let state = if good == 0 { State::Bad } else { State::Doubtful };
    Finding { state, what, remedy: Some(remedy.join("\n")) }
}
