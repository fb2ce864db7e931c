use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::Url;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::body::{BodyKind, gunzip};
use super::delta::{Difference, difference};
use super::drift::{DriftEvent, DriftWatch, Findings, Inquiry, Observation, inquire};
use super::failure::ScrapeFailure;
use super::fetch::{Access, Fetcher, scrape_url};
use super::field::{Field, FieldSet};
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
    access: Access,
    /// The page of its own.
    gpu: Option<Result<Url, ScrapeFailure>>,
    /// Whether the engine's page counts for the GPU, too.
    gpu_beside: bool,
    names: Names,
    gpus: Option<Arc<GpuSelector>>,
}

impl Pages {
    fn new(target: &ScrapeTarget, names: Names, fetcher: &Fetcher) -> Self {
        let gpu = match &target.gpu {
            GpuPage::None | GpuPage::Same => None,
            GpuPage::Separate(url) => Some(scrape_url(url)),
        };
        let gpu_beside = target.gpu == GpuPage::Same;
        let engine = scrape_url(&target.url)
            .and_then(|url| fetcher.access(&target.access).map(|access| (url, access)));
        let (engine, access) = match engine {
            Ok((url, access)) => (Ok(url), access),
            Err(failure) => (Err(failure), Access::default()),
        };
        Self { engine, access, gpu, gpu_beside, names, gpus: target.gpus.clone().map(Arc::new) }
    }
}

/// The engine's page, and when it was here.
struct Arrived {
    page: PageReading,
    findings: Findings,
    /// Fields that nothing is known of because they were not asked for, or their page could not be read.
    unasked: FieldSet,
    at: DateTime<Utc>,
    instant: Instant,
}

/// What the page of a GPU exporter said.
enum Beside {
    /// There is none.
    None,
    Failed,
    Read(Box<PageReading>, Findings),
}

/// The last page that was read of a target, and when; whoever follows it next goes on from there.
pub(super) type LastReading = Arc<Mutex<Option<(EngineReading, Instant)>>>;

/// What is remembered of a target from scrape to scrape.
#[derive(Default)]
struct Memory {
    watch: DriftWatch,
    previous: LastReading,
    learned: LearnedLimits,
    limits: Limits,
}

/// Scrapes one target for ever, first at `first`.
pub(super) async fn follow(
    shared: Arc<Shared>,
    target: ScrapeTarget,
    names: Names,
    previous: LastReading,
    first: Instant,
) {
    let pages = Pages::new(&target, names, &shared.fetcher);
    let mut ticks = ticks(first, shared.options.interval);
    let mut memory = Memory { previous, ..Memory::default() };
    loop {
        ticks.tick().await;
        let started = Instant::now();
        shared.metrics.scrapes.inc();
        let result = shared.scrape(&target.pool, &pages, &memory.watch.inquiry(), started).await;
        shared.metrics.duration_seconds.observe(started.elapsed().as_secs_f64());
        let (at, result, drift) = match result {
            Ok(arrived) => {
                let at = arrived.at;
                let (result, drift) = shared.take_in(&target, &pages, &mut memory, arrived);
                (at, result, drift)
            }
            Err(failure) => {
                if failure.kind().may_be_a_restart() {
                    memory.watch.interrupted();
                }
                (Utc::now(), Err(failure), Vec::new())
            }
        };
        if let Err(failure) = &result {
            shared.metrics.failed(Page::Engine, failure);
        }
        let backend = Arc::clone(&target.backend);
        let (limits, faults) = (memory.limits, memory.watch.faults());
        let outcome = ScrapeOutcome { backend, at, result, limits, drift, faults };
        if let Err(TrySendError::Full(_)) = shared.outcomes.try_send(outcome) {
            shared.metrics.outcomes_dropped.inc();
        }
    }
}

impl Arrived {
    fn add_gpu(&mut self, gpu: Beside, beside: bool) {
        let field = Field::GpuUtilisation;
        match gpu {
            Beside::None if beside => {}
            Beside::Read(page, findings) => {
                self.page.present.remove(field);
                self.page.reading.clear(field);
                if page.present.contains(field) {
                    self.page.present.insert(field);
                }
                if let Some(value) = page.reading.get(field) {
                    self.page.reading.set(field, value);
                }
                self.findings.join(findings);
            }
            Beside::None | Beside::Failed => {
                self.page.reading.clear(field);
                self.unasked.insert(field);
            }
        }
    }
}

impl Shared {
    /// Reads the engine's page, and beside it the GPU page where that is another one.
    async fn scrape(
        &self,
        pool: &str,
        pages: &Pages,
        inquiry: &Inquiry,
        started: Instant,
    ) -> Result<Arrived, ScrapeFailure> {
        let deadline = self.options.deadline;
        let end = started + deadline;
        // A slot that comes later than half-way would leave a healthy server too little time and blame it.
        let slot_patience = deadline / 2;
        let no_slot = || ScrapeFailure::NoSlot(milliseconds(slot_patience));
        let slot = timeout_at(started + slot_patience, self.slots.acquire(pool)).await;
        let _slot = slot.ok().flatten().ok_or_else(|| {
            self.metrics.no_slot(pool);
            no_slot()
        })?;
        let engine = async {
            let own = if pages.gpu_beside { inquiry.clone() } else { inquiry.of_engine() };
            let how =
                How { packs: &pages.names.engine, gpus: &pages.gpus, inquiry: &own, access: &pages.access };
            let (page, findings) = self.read(&pages.engine, how, end, deadline).await?;
            let unasked = FieldSet::default();
            Ok(Arrived { page, findings, unasked, at: Utc::now(), instant: Instant::now() })
        };
        // The engine's figures must not wait long for the less important gauge.
        let patience = deadline / 3;
        let gpu = async {
            let Some(url) = pages.gpu.as_ref() else { return Beside::None };
            let inquiry = inquiry.of_gpu();
            let access = &Access::default();
            let how = How { packs: &pages.names.gpu, gpus: &pages.gpus, inquiry: &inquiry, access };
            let read = self.read(url, how, started + patience, patience).await;
            let failure = match &read {
                Ok((page, _)) => nothing_known(page),
                Err(failure) => Some(failure.clone()),
            };
            if let Some(failure) = failure {
                self.metrics.failed(Page::Gpu, &failure);
            }
            read.map_or(Beside::Failed, |(page, findings)| Beside::Read(Box::new(page), findings))
        };
        let (arrived, gpu): (Result<Arrived, ScrapeFailure>, _) = tokio::join!(engine, gpu);
        let mut arrived = arrived?;
        arrived.add_gpu(gpu, pages.gpu_beside);
        Ok(arrived)
    }

    async fn read(
        &self,
        url: &Result<Url, ScrapeFailure>,
        how: How<'_>,
        end: Instant,
        patience: Duration,
    ) -> Result<(PageReading, Findings), ScrapeFailure> {
        let url = url.clone()?;
        let fetched = timeout_at(end, self.fetcher.page(url, how.access)).await;
        let (body, kind) = fetched.map_err(|_| ScrapeFailure::Timeout(milliseconds(patience)))??;
        if kind.form == PageForm::Json && !how.packs.reads_json() {
            return Err(ScrapeFailure::NotText("application/json".to_owned()));
        }
        let large = if kind.gzip { LARGE_PACKED_BYTES } else { LARGE_PAGE_BYTES };
        let limit_bytes = self.options.max_page_bytes;
        let (page, findings) = if body.len() < large {
            unpack_and_read(&body, kind, how, limit_bytes)?
        } else {
            let (packs, gpus, inquiry) = (Arc::clone(how.packs), how.gpus.clone(), how.inquiry.clone());
            let parse = tokio::task::spawn_blocking(move || {
                let access = &Access::default();
                let how = How { packs: &packs, gpus: &gpus, inquiry: &inquiry, access };
                unpack_and_read(&body, kind, how, limit_bytes)
            });
            parse.await.map_err(|error| ScrapeFailure::Broken(error.to_string()))??
        };
        self.metrics.bad_lines.inc_by(page.tally.bad_lines as u64);
        self.metrics.dropped(&page.drops);
        Ok((page, findings))
    }

    /// Makes a sample of a page, if it has any known name, and tells what has changed about the backend's telemetry.
    fn take_in(
        &self,
        target: &ScrapeTarget,
        pages: &Pages,
        memory: &mut Memory,
        arrived: Arrived,
    ) -> (Result<Sample, ScrapeFailure>, Vec<DriftEvent>) {
        let Arrived { mut page, findings, unasked, at, instant } = arrived;
        let promises = pages.names.engine.promises(page.engine);
        if let Some(failure) = nothing_known(&page) {
            let seen =
                Observation { page: &page, promises, limits: &memory.limits, restarted: false, unasked };
            return (Err(failure), self.watch(target, &mut memory.watch, &seen, findings));
        }
        let mut last = memory.previous.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = last.take();
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
        let seen = Observation { page: &page, promises, limits: &memory.limits, restarted, unasked };
        let drift = self.watch(target, &mut memory.watch, &seen, findings);
        if let (false, Some((before, _))) = (restarted, &previous) {
            page.reading.keep_counters(before);
        }
        *last = Some((page.reading, instant));
        drop(last);
        (Ok(sample), drift)
    }

    fn watch(
        &self,
        target: &ScrapeTarget,
        watch: &mut DriftWatch,
        seen: &Observation<'_>,
        findings: Findings,
    ) -> Vec<DriftEvent> {
        let drift = watch.observe(seen, findings);
        for event in &drift {
            self.metrics.drifted(event);
            tracing::debug!(backend = %target.backend, "telemetry: {event}");
        }
        drift
    }
}

/// By which names a page is read, what else is looked for, and how it is asked for.
#[derive(Clone, Copy)]
struct How<'a> {
    packs: &'a Arc<Packs>,
    gpus: &'a Option<Arc<GpuSelector>>,
    inquiry: &'a Inquiry,
    access: &'a Access,
}

/// Tells of a page that has no known name on it, unless it may lack them.
fn nothing_known(page: &PageReading) -> Option<ScrapeFailure> {
    let PageReading { tally, known_series, is_idle, .. } = page;
    let failure = ScrapeFailure::NoKnownMetrics { samples: tally.samples, bad_lines: tally.bad_lines };
    (*known_series == 0 && !is_idle).then_some(failure)
}

fn unpack_and_read(
    body: &[u8],
    kind: BodyKind,
    how: How<'_>,
    limit_bytes: usize,
) -> Result<(PageReading, Findings), ScrapeFailure> {
    let unpacked;
    let body = if kind.gzip {
        unpacked = gunzip(body, limit_bytes)?;
        &unpacked
    } else {
        body
    };
    let page = read(body, kind.form, how.packs, how.gpus.as_deref());
    let findings = inquire(body, kind.form, how.packs, &page, how.inquiry);
    Ok((page, findings))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
