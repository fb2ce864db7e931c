use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::alias::{AliasPack, DCGM, VLLM};
use super::delta::{Difference, difference};
use super::failure::ScrapeFailure;
use super::fetch::scrape_url;
use super::metrics::Page;
use super::page::{EngineReading, PageReading, read_page};
use super::sample::Sample;
use super::scrape::{ScrapeOutcome, Shared, ticks};
use super::target::{GpuPage, ScrapeTarget};

/// Pages beyond this size, in bytes, are parsed on a thread that may block: about half a millisecond of work.
const LARGE_PAGE_BYTES: usize = 128 * 1024;

/// A target with its URLs parsed.
struct Pages {
    engine: Result<Url, ScrapeFailure>,
    engine_packs: &'static [&'static AliasPack],
    gpu: Option<Result<Url, ScrapeFailure>>,
}

impl Pages {
    fn new(target: &ScrapeTarget) -> Self {
        let engine = scrape_url(&target.url);
        match &target.gpu {
            GpuPage::None => Self { engine, engine_packs: &[&VLLM], gpu: None },
            GpuPage::Same => Self { engine, engine_packs: &[&VLLM, &DCGM], gpu: None },
            GpuPage::Separate(url) => Self { engine, engine_packs: &[&VLLM], gpu: Some(scrape_url(url)) },
        }
    }
}

/// The engine's page, and when it was here.
struct Arrived {
    reading: EngineReading,
    at: DateTime<Utc>,
    instant: Instant,
}

/// Scrapes one target for ever, first at `first`.
pub(super) async fn follow(shared: Arc<Shared>, target: ScrapeTarget, first: Instant) {
    let pages = Pages::new(&target);
    let mut ticks = ticks(first, shared.options.interval);
    let mut previous: Option<Arrived> = None;
    loop {
        ticks.tick().await;
        let started = Instant::now();
        shared.metrics.scrapes.inc();
        let result = shared.scrape(&pages, started).await;
        shared.metrics.duration_seconds.observe(started.elapsed().as_secs_f64());
        let outcome = match result {
            Ok(arrived) => {
                let sample = shared.sample(&target, previous.as_ref(), &arrived);
                let at = arrived.at;
                previous = Some(arrived);
                ScrapeOutcome { backend: Arc::clone(&target.backend), at, result: Ok(sample) }
            }
            Err(failure) => {
                shared.metrics.failed(Page::Engine, &failure);
                ScrapeOutcome { backend: Arc::clone(&target.backend), at: Utc::now(), result: Err(failure) }
            }
        };
        if let Err(TrySendError::Full(_)) = shared.outcomes.try_send(outcome) {
            shared.metrics.outcomes_dropped.inc();
        }
    }
}

impl Shared {
    /// Reads the engine's page, and beside it the GPU page where that is another one.
    async fn scrape(&self, pages: &Pages, started: Instant) -> Result<Arrived, ScrapeFailure> {
        let deadline = self.options.deadline;
        let end = started + deadline;
        // A slot that comes later than half-way would leave a healthy server too little time and blame it.
        let slot_patience = deadline / 2;
        let no_slot = || ScrapeFailure::NoSlot(milliseconds(slot_patience));
        let slot = timeout_at(started + slot_patience, self.slots.acquire()).await.map_err(|_| no_slot())?;
        let _slot = slot.map_err(|_| no_slot())?;
        let engine = async {
            let page = self.read(&pages.engine, pages.engine_packs, end, deadline).await?;
            Ok(Arrived { reading: page.reading, at: Utc::now(), instant: Instant::now() })
        };
        // The engine's figures must not wait long for the less important gauge.
        let patience = deadline / 3;
        let gpu = async {
            let url = pages.gpu.as_ref()?;
            match self.read(url, &[&DCGM], started + patience, patience).await {
                Ok(page) => page.reading.gpu_utilisation,
                Err(failure) => {
                    self.metrics.failed(Page::Gpu, &failure);
                    None
                }
            }
        };
        let (arrived, gpu): (Result<Arrived, ScrapeFailure>, _) = tokio::join!(engine, gpu);
        let mut arrived = arrived?;
        if pages.gpu.is_some() {
            arrived.reading.gpu_utilisation = gpu;
        }
        Ok(arrived)
    }

    async fn read(
        &self,
        url: &Result<Url, ScrapeFailure>,
        packs: &'static [&'static AliasPack],
        end: Instant,
        patience: Duration,
    ) -> Result<PageReading, ScrapeFailure> {
        let url = url.clone()?;
        let fetched = timeout_at(end, self.fetcher.page(url)).await;
        let page = fetched.map_err(|_| ScrapeFailure::Timeout(milliseconds(patience)))??;
        let result = if page.len() < LARGE_PAGE_BYTES {
            read_page(&page, packs)
        } else {
            let parse = tokio::task::spawn_blocking(move || read_page(&page, packs));
            parse.await.map_err(|error| ScrapeFailure::Broken(error.to_string()))?
        };
        self.metrics.bad_lines.inc_by(result.tally.bad_lines as u64);
        self.metrics.dropped(&result.drops);
        if result.known_series == 0 {
            let PageReading { tally, .. } = result;
            return Err(ScrapeFailure::NoKnownMetrics { samples: tally.samples, bad_lines: tally.bad_lines });
        }
        Ok(result)
    }

    fn sample(&self, target: &ScrapeTarget, previous: Option<&Arrived>, arrived: &Arrived) -> Sample {
        let previous = previous
            .map(|before| (&before.reading, arrived.instant.saturating_duration_since(before.instant)));
        let Difference { sample, restarted, drops } =
            difference(Arc::clone(&target.backend), arrived.at, previous, &arrived.reading);
        self.metrics.dropped(&drops);
        if restarted {
            self.metrics.restarts.inc();
            tracing::info!(backend = %target.backend, "engine restarted: its counters began anew");
        }
        sample
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
