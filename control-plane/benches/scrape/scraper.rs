//! The scraper as Clairvoy runs it, and what is measured of it.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use clairvoy::telemetry::{
    ScrapeOptions, ScrapeOutcome, ScrapeTarget, Scraper, TelemetryMetrics, install_crypto_provider,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::process::{cpu_seconds, resident_mib};

/// Role `scraper`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port of the server
    #[arg(long)]
    port: u16,
    /// Number of backends
    #[arg(long)]
    backends: u32,
    /// Seconds before the measurement
    #[arg(long)]
    warm_up: u64,
    /// Seconds of the measurement
    #[arg(long)]
    seconds: u64,
}

/// What a run gave.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// CPU time by time.
    pub(crate) cores: f64,
    /// CPU time by scrape, in microseconds.
    pub(crate) cpu_per_scrape_us: f64,
    /// Age of the newest sample of a backend, over all backends and moments, in milliseconds.
    pub(crate) age_p50_ms: f64,
    pub(crate) age_p99_ms: f64,
    /// Parts of the scrapes that should have been which gave no sample, in per cent.
    pub(crate) missed_percent: f64,
    pub(crate) samples: u64,
    pub(crate) memory_mib: f64,
}

/// How often the ages of all samples are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(97);

pub(crate) fn run(args: &Args) -> Result<()> {
    install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let measured = runtime.block_on(measure(args))?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

async fn measure(args: &Args) -> Result<Measured> {
    let address = |backend: u32| Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 0)) + backend);
    let targets: Vec<ScrapeTarget> = (0..args.backends)
        .map(|backend| ScrapeTarget::new(format!("{}:{}", address(backend), args.port).into()))
        .collect();
    let (_targets, followed) = watch::channel(Arc::new(targets));
    let (sender, mut outcomes) = mpsc::channel(20_000);
    let metrics = TelemetryMetrics::register(&mut prometheus_client::registry::Registry::default());
    let options = ScrapeOptions::default();
    let shutdown = CancellationToken::new();
    let scraper = Scraper::new(options, followed, sender, metrics)?;
    let task = tokio::spawn(scraper.run(shutdown.clone()));

    let mut newest: HashMap<Arc<str>, DateTime<Utc>> = HashMap::new();
    let warm_up = tokio::time::sleep(Duration::from_secs(args.warm_up));
    tokio::pin!(warm_up);
    loop {
        tokio::select! {
            () = &mut warm_up => break,
            outcome = outcomes.recv() => take(outcome.context("the scraper ended")?, &mut newest),
        };
    }
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let mut samples = 0;
    let mut ages = Ages::default();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let end = tokio::time::sleep(Duration::from_secs(args.seconds));
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = looks.tick() => {
                let now = Utc::now();
                newest.values().for_each(|at| ages.add((now - *at).num_milliseconds()));
            }
            outcome = outcomes.recv() => {
                samples += u64::from(take(outcome.context("the scraper ended")?, &mut newest));
            }
        }
    }
    let wall = started.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    let memory_mib = resident_mib()?;
    shutdown.cancel();
    task.await?;
    let due = f64::from(args.backends) * wall / options.interval.as_secs_f64();
    Ok(Measured {
        cores: cpu / wall,
        cpu_per_scrape_us: cpu * 1e6 / samples as f64,
        age_p50_ms: ages.percentile(0.5),
        age_p99_ms: ages.percentile(0.99),
        missed_percent: (100.0 * (1.0 - samples as f64 / due)).max(0.0),
        samples,
        memory_mib,
    })
}

/// How many ages were seen of each number of milliseconds; what is older than the last counts as that.
struct Ages {
    counts: Vec<u64>,
}

impl Default for Ages {
    fn default() -> Self {
        Self { counts: vec![0; 10_001] }
    }
}

impl Ages {
    fn add(&mut self, milliseconds: i64) {
        let last = self.counts.len() - 1;
        self.counts[usize::try_from(milliseconds).unwrap_or(0).min(last)] += 1;
    }

    /// The age that a part of those seen does not exceed.
    fn percentile(&self, part: f64) -> f64 {
        let wanted = self.counts.iter().sum::<u64>() as f64 * part;
        let mut seen = 0.0;
        for (milliseconds, count) in self.counts.iter().enumerate() {
            seen += *count as f64;
            if seen >= wanted {
                return milliseconds as f64;
            }
        }
        f64::NAN
    }
}

/// Notes when a backend's sample was taken; false for a scrape that gave none.
fn take(outcome: ScrapeOutcome, newest: &mut HashMap<Arc<str>, DateTime<Utc>>) -> bool {
    let is_good = outcome.result.is_ok();
    if is_good {
        newest.insert(outcome.backend, outcome.at);
    }
    is_good
}
