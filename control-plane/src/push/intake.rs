use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use axum::http::request::Parts;
use chrono::Utc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::config::Push;
use crate::envoy::OrcaReading;
use crate::telemetry::{ScrapeOutcome, TelemetryMetrics};

use super::access::{Access, Admitted, Certified, PushSenders};
use super::batch::{Batch, MOST_BYTES};
use super::body::{BodyLimits, Held, Packing};
use super::collector::{Collector, Rules};
use super::directory::Directory;
use super::doors::{Doors, for_senders};
use super::metrics::{Protocol, PushMetrics};
use super::queue::Assembly;
use super::refusal::{RequestRefusal, Tally};
use super::shares::{Amount, Peer, Sender, Share, Shares};
use super::{orca, otlp, plain, remote_write};

/// Requests that may wait to be put together; their points are counted besides.
const QUEUE_REQUESTS: usize = 4096;
/// Bodies beyond this many bytes are decoded on a thread that may block: about half a millisecond of work.
const LARGE_BODY_BYTES: usize = 64 * 1024;
/// After this time, in seconds, a sender that was turned away may come back.
pub(super) const RETRY_AFTER_SECONDS: u64 = 1;

/// Takes telemetry from senders. Clones are handles of the same intake.
#[derive(Clone, Debug)]
pub struct Intake {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rules: Rules,
    directory: Arc<ArcSwap<Directory>>,
    senders: PushSenders,
    limits: BodyLimits,
    doors: Arc<Doors>,
    requests: Arc<Semaphore>,
    /// What each sender has of the places for requests, and of the queue.
    request_shares: Arc<Shares>,
    queue_shares: Arc<Shares>,
    room: Arc<Semaphore>,
    byte_room: Arc<Semaphore>,
    queue: mpsc::Sender<Queued>,
    metrics: PushMetrics,
    /// Whether names that no engine has are wanted by the assembly.
    names_wanted: Arc<AtomicBool>,
}

/// A batch with its places in the queue.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) batch: Batch,
    pub(super) places: OwnedSemaphorePermit,
    pub(super) bytes: OwnedSemaphorePermit,
    /// Its part of the memory that all requests share.
    pub(super) memory: Option<OwnedSemaphorePermit>,
    /// Its part of what its sender may have of the queue.
    pub(super) share: Share,
}

/// A place among the requests at once.
#[derive(Debug)]
pub(super) struct Place {
    _share: Share,
    _permit: OwnedSemaphorePermit,
}

/// What was decoded of a request.
#[derive(Debug)]
struct Decoded {
    batch: Batch,
    tally: Tally,
    memory: Option<OwnedSemaphorePermit>,
}

/// The language of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OtlpProtobuf,
    OtlpJson,
    RemoteWrite,
    Plain,
}

/// What became of a request that was understood.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) points: usize,
    pub(super) tally: Tally,
}

impl Intake {
    /// Makes an intake, and the assembly that turns its points into `outcomes`. `directory` can be replaced at any time.
    pub fn new(
        options: &Push,
        senders: PushSenders,
        directory: Arc<ArcSwap<Directory>>,
        outcomes: mpsc::Sender<ScrapeOutcome>,
        metrics: PushMetrics,
        telemetry: TelemetryMetrics,
    ) -> (Self, Assembly) {
        let (queue, queued) = mpsc::channel(QUEUE_REQUESTS);
        let names_wanted = Arc::new(AtomicBool::new(true));
        let assembly = Assembly::new(
            options,
            queued,
            Arc::clone(&directory),
            outcomes,
            metrics.clone(),
            telemetry,
            Arc::clone(&names_wanted),
        );
        let shared = Shared {
            rules: Rules::new(options),
            directory,
            senders,
            limits: BodyLimits {
                max_bytes: options.max_body_bytes,
                deadline: options.body_deadline.0,
                memory: Arc::new(Semaphore::new(options.max_buffered_bytes)),
            },
            doors: Arc::new(for_senders(options.max_connections, options.max_connections_per_peer)),
            requests: Arc::new(Semaphore::new(options.max_requests)),
            request_shares: Arc::new(Shares::new(Amount {
                requests: options.max_requests,
                ..Amount::default()
            })),
            queue_shares: Arc::new(Shares::new(Amount {
                requests: QUEUE_REQUESTS,
                points: options.queue_points,
                bytes: MOST_BYTES,
            })),
            room: Arc::new(Semaphore::new(options.queue_points)),
            byte_room: Arc::new(Semaphore::new(MOST_BYTES)),
            queue,
            metrics,
            names_wanted,
        };
        (Self { shared: Arc::new(shared) }, assembly)
    }

    pub(super) fn metrics(&self) -> &PushMetrics {
        &self.shared.metrics
    }

    pub(super) fn doors(&self) -> &Arc<Doors> {
        &self.shared.doors
    }

    pub(super) fn limits(&self) -> &BodyLimits {
        &self.shared.limits
    }

    /// What the certificate of a connection opens.
    pub(super) fn certified(&self, identities: &[String]) -> Option<Certified> {
        self.shared.senders.certified(identities)
    }

    /// What a sender may write to; a browser may not.
    pub(super) fn admit(&self, head: &Parts) -> Result<Admitted, RequestRefusal> {
        // No sender of telemetry says where a page came from. Without a token it could be any page.
        if head.headers.contains_key(axum::http::header::ORIGIN) {
            return Err(RequestRefusal::Browser);
        }
        let peer = head.extensions.get().copied().unwrap_or_else(Peer::none);
        let admitted = self.shared.senders.admit(&head.headers, head.extensions.get(), peer);
        admitted.ok_or(RequestRefusal::Unauthenticated)
    }

    /// A place among the requests at once, for one whose body is here: a body that comes slowly takes none.
    pub(super) fn place(&self, sender: Sender) -> Result<Place, RequestRefusal> {
        let one = Amount { requests: 1, ..Amount::default() };
        let share = self.shared.request_shares.take(sender, one);
        let share = share.ok_or(RequestRefusal::Busy("too many requests of this sender at once"))?;
        let permit = Arc::clone(&self.shared.requests).try_acquire_owned();
        let permit = permit.map_err(|_| RequestRefusal::Busy("too many requests at once"))?;
        Ok(Place { _share: share, _permit: permit })
    }

    /// Decodes a body and queues what is known. The place is taken for as long as that works, even when its sender has left.
    pub(super) async fn take(
        &self,
        protocol: Protocol,
        format: Format,
        packing: Packing,
        body: Held,
        admitted: Admitted,
        place: Place,
    ) -> Result<Accepted, RequestRefusal> {
        self.shared.metrics.received(protocol, body.bytes.len());
        // A packed body may grow a thousand times.
        let large = packing != Packing::Plain || body.bytes.len() > LARGE_BODY_BYTES;
        let shared = Arc::clone(&self.shared);
        let Admitted { sender, access } = admitted;
        let work = move || shared.decode(format, packing, body, &access).map(|decoded| (decoded, place));
        let (decoded, _place) = if large {
            let decoded = tokio::task::spawn_blocking(work).await;
            decoded.map_err(|error| RequestRefusal::Malformed(error.to_string()))??
        } else {
            work()?
        };
        self.shared.queue(protocol, sender, decoded)
    }

    /// Who pushes.
    pub fn directory(&self) -> Arc<Directory> {
        self.shared.directory.load_full()
    }

    /// Queues what backends say of themselves in their answers. What finds no room is dropped and counted: newer comes soon.
    pub fn take_orca(&self, readings: &[OrcaReading]) {
        let taken = self.shared.take_orca(readings);
        self.note(Protocol::Orca, &taken);
    }
}

impl Decoded {
    fn of(collector: Collector<'_>) -> Self {
        let Collector { batch, tally, memory, .. } = collector;
        Self { batch, tally, memory }
    }
}

impl Shared {
    fn take_orca(&self, readings: &[OrcaReading]) -> Result<Accepted, RequestRefusal> {
        let directory = self.directory.load_full();
        let now_ms = Utc::now().timestamp_millis();
        let mut collector =
            Collector::new(&self.rules, &directory, &Access::All, now_ms).within(&self.limits);
        orca::take(readings, &mut collector)?;
        self.queue(Protocol::Orca, Sender::Envoys, Decoded::of(collector))
    }

    fn decode(
        &self,
        format: Format,
        packing: Packing,
        body: Held,
        access: &Access,
    ) -> Result<Decoded, RequestRefusal> {
        let body = self.limits.unpack(body, packing)?;
        let now_ms = Utc::now().timestamp_millis();
        let directory = self.directory.load_full();
        let mut collector = Collector::new(&self.rules, &directory, access, now_ms).within(&self.limits);
        collector.batch.wants_unknown = self.names_wanted.load(Ordering::Relaxed);
        match format {
            Format::OtlpProtobuf => otlp::decode(&body.bytes, &mut collector),
            Format::OtlpJson => otlp::json::decode(&body.bytes, &mut collector),
            Format::RemoteWrite => remote_write::decode(&body.bytes, &mut collector),
            Format::Plain => plain::decode(&body.bytes, &mut collector),
        }?;
        Ok(Decoded::of(collector))
    }

    /// Queues a batch whole, or not at all: a sender that comes back sends all of it again.
    fn queue(
        &self,
        protocol: Protocol,
        sender: Sender,
        decoded: Decoded,
    ) -> Result<Accepted, RequestRefusal> {
        let Decoded { batch, tally, memory } = decoded;
        const FULL: RequestRefusal = RequestRefusal::Busy("the queue is full");
        let points = batch.points.len();
        if points > 0 || !batch.unknown.is_empty() {
            let amount = Amount { requests: 1, points, bytes: batch.bytes() };
            let share = self.queue_shares.take(sender, amount);
            let share = share.ok_or(RequestRefusal::Busy("the queue is full of this sender's points"))?;
            let count = u32::try_from(points).map_err(|_| FULL)?;
            let places = Arc::clone(&self.room).try_acquire_many_owned(count).map_err(|_| FULL)?;
            let bytes = u32::try_from(batch.bytes()).map_err(|_| FULL)?;
            let bytes = Arc::clone(&self.byte_room).try_acquire_many_owned(bytes).map_err(|_| FULL)?;
            self.queue.try_send(Queued { batch, places, bytes, memory, share }).map_err(|_| FULL)?;
            self.metrics.queued_points.inc_by(i64::from(count));
        }
        self.metrics.taken(protocol, points, &tally);
        Ok(Accepted { points, tally })
    }
}
