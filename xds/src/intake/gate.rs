//! The way into a queue: admits streams and delivers what they carry.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tonic::Status;

use super::metrics::ServiceMetrics;
use super::queue::{NoPlace, Queue};

/// Shared by the streams of one service.
#[derive(Debug)]
pub(super) struct Gate<T> {
    state: Mutex<State<T>>,
    max_streams: usize,
    metrics: ServiceMetrics,
    closed: watch::Sender<bool>,
}

#[derive(Debug)]
struct State<T> {
    /// `None` when closed. Each stream holds a clone, so the queue ends with the last of them.
    queue: Option<Queue<T>>,
    streams: usize,
}

impl<T> Gate<T> {
    pub(super) fn new(queue: Queue<T>, max_streams: usize, metrics: ServiceMetrics) -> Self {
        let state = Mutex::new(State { queue: Some(queue), streams: 0 });
        Self { state, max_streams, metrics, closed: watch::Sender::new(false) }
    }

    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission<T>, Status> {
        let mut state = self.state();
        let refusal = match &state.queue {
            None => shutting_down(),
            Some(queue) if state.streams < self.max_streams => {
                let admission = Admission {
                    queue: queue.clone(),
                    closed: self.closed.subscribe(),
                    metrics: self.metrics.clone(),
                    _place: StreamPlace { gate: self.clone() },
                };
                state.streams += 1;
                self.metrics.streams.inc();
                return Ok(admission);
            }
            Some(_) => {
                Status::resource_exhausted(format!("{} streams are open, the limit", self.max_streams))
            }
        };
        self.metrics.streams_rejected.inc();
        Err(refusal)
    }

    /// Ends all streams and refuses new ones.
    pub(super) fn close(&self) {
        drop(self.state().queue.take());
        self.closed.send_replace(true);
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the server is shutting down")
}

/// An open stream.
#[derive(Debug)]
pub(super) struct Admission<T> {
    queue: Queue<T>,
    closed: watch::Receiver<bool>,
    pub(super) metrics: ServiceMetrics,
    _place: StreamPlace<T>,
}

#[derive(Debug)]
struct StreamPlace<T> {
    gate: Arc<Gate<T>>,
}

impl<T> Drop for StreamPlace<T> {
    fn drop(&mut self) {
        self.gate.state().streams -= 1;
        self.gate.metrics.streams.dec();
    }
}

/// What a message amounts to, known before it is decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) entries: usize,
    /// Memory that it takes when decoded.
    pub(super) bytes: usize,
}

impl<T> Admission<T> {
    /// Waits for the end of the service, and returns what the stream is to end with.
    pub(super) fn closed(&self) -> impl Future<Output = Status> + use<T> {
        let mut closed = self.closed.clone();
        async move {
            // An error says that the service is gone altogether.
            let _ = closed.wait_for(|closed| *closed).await;
            shutting_down()
        }
    }

    pub(super) fn count_message(&self, encoded_bytes: usize) {
        self.metrics.messages.inc();
        self.metrics.bytes.inc_by(encoded_bytes as u64);
    }

    /// Decodes and queues, or drops and counts. The wait for a place may be given up and begun again.
    pub(super) async fn deliver(
        &self,
        size: Size,
        decode: impl FnOnce() -> Result<T, Status>,
    ) -> Result<(), Status> {
        match self.queue.place(size.bytes).await {
            Ok(place) => {
                let item = decode()?;
                self.metrics.entries.inc_by(size.entries as u64);
                place.fill(item);
                Ok(())
            }
            Err(NoPlace::Full) => {
                self.metrics.entries.inc_by(size.entries as u64);
                self.metrics.dropped_messages.inc();
                self.metrics.dropped_entries.inc_by(size.entries as u64);
                self.queue.dropped(size.entries);
                Ok(())
            }
            Err(NoPlace::Closed) => Err(Status::unavailable("nobody receives what this stream carries")),
        }
    }
}
