use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::body::{BodyKind, gunzip};
use super::delta::{Difference, difference};
use super::failure::ScrapeFailure;
use super::fetch::scrape_url;
use super::field::Field;
use super::gpu::GpuSelector;
use super::limits::{LearnedLimits, Limits};
use super::lookup::Packs;
use super::metrics::Page;
use super::page::{PageForm, PageReading, read};
use super::reading::EngineReading;
use super::sample::Sample;
use super::scrape::{ScrapeOutcome, Shared, ticks};
use super::target::{GpuPage, ScrapeTarget};

/// Pages beyond this size, in bytes, are parsed on a thread that may block: about half a millisecond of work.
const LARGE_PAGE_BYTES: usize = 512 * 1024;

/// The same for packed ones.
const LARGE_PACKED_BYTES: usize = 16 * 1024;

/// The names that a target is read with.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) engine: Arc<Packs>,
    /// Those of GPU exporters, for pages of their own.
    pub(super) gpu: Arc<Packs>,
}

/// A target with its URLs parsed.
struct Pages {
    engine: Result<Url, ScrapeFailure>,
    /// The page of its own.
    gpu: Option<Result<Url, ScrapeFailure>>,
    /// Whether the engine's page counts for the GPU, too.
    gpu_beside: bool,
    names: Names,
    gpus: Option<Arc<GpuSelector>>,
}

impl Pages {
    fn new(target: &ScrapeTarget, names: Names) -> Self {
        let gpu = match &target.gpu {
            GpuPage::None | GpuPage::Same => None,
            GpuPage::Separate(url) => Some(scrape_url(url)),
        };
        let gpu_beside = target.gpu == GpuPage::Same;
        Self {
            engine: scrape_url(&target.url),
            gpu,
            gpu_beside,
            names,
            gpus: target.gpus.clone().map(Arc::new),
        }
    }
}

/// The engine's page, and when it was here.
struct Arrived {
    page: PageReading,
    at: DateTime<Utc>,
    instant: Instant,
}

/// What is remembered of a target from scrape to scrape.
#[derive(Default)]
struct Memory {
    previous: Option<(EngineReading, Instant)>,
    learned: LearnedLimits,
    limits: Limits,
}

/// Scrapes one target for ever, first at `first`.
pub(super) async fn follow(shared: Arc<Shared>, target: ScrapeTarget, names: Names, first: Instant) {
    let pages = Pages::new(&target, names);
    let mut ticks = ticks(first, shared.options.interval);
    let mut memory = Memory::default();
    loop {
        ticks.tick().await;
        let started = Instant::now();
        shared.metrics.scrapes.inc();
        let result = shared.scrape(&pages, started).await;
        shared.metrics.duration_seconds.observe(started.elapsed().as_secs_f64());
        let (at, result) = match result {
            Ok(arrived) => (arrived.at, Ok(shared.sample(&target, &mut memory, arrived))),
            Err(failure) => {
                shared.metrics.failed(Page::Engine, &failure);
                (Utc::now(), Err(failure))
            }
        };
        let backend = Arc::clone(&target.backend);
        let outcome = ScrapeOutcome { backend, at, result, limits: memory.limits };
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
            let page =
                self.read(&pages.engine, &pages.names.engine, pages.gpus.clone(), end, deadline).await?;
            Ok(Arrived { page, at: Utc::now(), instant: Instant::now() })
        };
        // The engine's figures must not wait long for the less important gauge.
        let patience = deadline / 3;
        let gpu = async {
            let url = pages.gpu.as_ref()?;
            match self.read(url, &pages.names.gpu, pages.gpus.clone(), started + patience, patience).await {
                Ok(page) => page.reading.get(Field::GpuUtilisation),
                Err(failure) => {
                    self.metrics.failed(Page::Gpu, &failure);
                    None
                }
            }
        };
        let (arrived, gpu): (Result<Arrived, ScrapeFailure>, _) = tokio::join!(engine, gpu);
        let mut arrived = arrived?;
        match gpu {
            Some(gpu) => arrived.page.reading.set(Field::GpuUtilisation, gpu),
            None if pages.gpu_beside => {}
            None => arrived.page.reading.clear(Field::GpuUtilisation),
        }
        Ok(arrived)
    }

    async fn read(
        &self,
        url: &Result<Url, ScrapeFailure>,
        packs: &Arc<Packs>,
        gpus: Option<Arc<GpuSelector>>,
        end: Instant,
        patience: Duration,
    ) -> Result<PageReading, ScrapeFailure> {
        let url = url.clone()?;
        let fetched = timeout_at(end, self.fetcher.page(url)).await;
        let (body, kind) = fetched.map_err(|_| ScrapeFailure::Timeout(milliseconds(patience)))??;
        if kind.form == PageForm::Json && !packs.reads_json() {
            return Err(ScrapeFailure::NotText("application/json".to_owned()));
        }
        let large = if kind.gzip { LARGE_PACKED_BYTES } else { LARGE_PAGE_BYTES };
        let limit_bytes = self.options.max_page_bytes;
        let page = if body.len() < large {
            unpack_and_read(&body, kind, packs, gpus.as_deref(), limit_bytes)?
        } else {
            let packs = Arc::clone(packs);
            let parse = tokio::task::spawn_blocking(move || {
                unpack_and_read(&body, kind, &packs, gpus.as_deref(), limit_bytes)
            });
            parse.await.map_err(|error| ScrapeFailure::Broken(error.to_string()))??
        };
        self.metrics.bad_lines.inc_by(page.tally.bad_lines as u64);
        self.metrics.dropped(&page.drops);
        if page.known_series == 0 && !page.is_idle {
            let PageReading { tally, .. } = page;
            return Err(ScrapeFailure::NoKnownMetrics { samples: tally.samples, bad_lines: tally.bad_lines });
        }
        Ok(page)
    }

    fn sample(&self, target: &ScrapeTarget, memory: &mut Memory, arrived: Arrived) -> Sample {
        let Arrived { mut page, at, instant } = arrived;
        let previous = memory.previous.take();
        if let (true, Some((before, _))) = (page.increments, &previous) {
            page.reading.add_counters(before);
        }
        let before =
            previous.as_ref().map(|(reading, then)| (reading, instant.saturating_duration_since(*then)));
        let Difference { sample, restarted, drops } =
            difference(Arc::clone(&target.backend), at, before, &page.reading);
        self.metrics.dropped(&drops);
        if restarted {
            self.metrics.restarts.inc();
            tracing::info!(backend = %target.backend, "engine restarted: its counters began anew");
            // It may run with other settings now.
            memory.learned = LearnedLimits::default();
        }
        memory.learned.observe(&sample);
        memory.limits = Limits::of(&target.limits, &page.reading, &memory.learned);
        memory.previous = Some((page.reading, instant));
        sample
    }
}

fn unpack_and_read(
    body: &[u8],
    kind: BodyKind,
    packs: &Packs,
    gpus: Option<&GpuSelector>,
    limit_bytes: usize,
) -> Result<PageReading, ScrapeFailure> {
    if kind.gzip {
        return Ok(read(&gunzip(body, limit_bytes)?, kind.form, packs, gpus));
    }
    Ok(read(body, kind.form, packs, gpus))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
