use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::http::keeping_client;
use super::{Chat, until};

/// Clients that keep asking for streams; whatever is not a complete answer counts as broken.
#[derive(Debug)]
pub(crate) struct Load {
    counts: Arc<Counts>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    streams: TaskTracker,
}

#[derive(Debug, Default)]
struct Counts {
    complete: AtomicU64,
    broken: Mutex<Vec<String>>,
}

impl Load {
    /// Starts a stream every `1 / rps` seconds, whether or not earlier ones have ended.
    pub(crate) fn start(chat: Chat, rps: f64) -> Self {
        let chat = Chat { client: keeping_client(), ..chat };
        let (counts, stop, streams) =
            (Arc::<Counts>::default(), CancellationToken::new(), TaskTracker::new());
        let task = tokio::spawn({
            let (counts, stop, streams) = (Arc::clone(&counts), stop.clone(), streams.clone());
            async move {
                let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rps));
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        _ = ticks.tick() => streams.spawn(one(chat.clone(), Arc::clone(&counts))),
                    };
                }
            }
        });
        Self { counts, stop, task, streams }
    }

    pub(crate) fn complete(&self) -> u64 {
        self.counts.complete.load(Ordering::Relaxed)
    }

    fn broken(&self) -> Vec<String> {
        self.counts.broken.lock().unwrap().clone()
    }

    /// Waits until so many more streams are complete; fails on a broken one.
    pub(crate) async fn more(&self, streams: u64) {
        let goal = self.complete() + streams;
        until(&format!("{streams} more streams"), 60, async || {
            assert!(self.broken().is_empty(), "broken: {:#?}", self.broken());
            let complete = self.complete();
            if complete >= goal { Ok(()) } else { Err(format!("{complete} of {goal}")) }
        })
        .await;
    }

    /// Waits until streams that were underway when Envoy's main thread took a change over are sent: until they have a
    /// connection they are not counted, and its workers learn of the change a moment after its main thread tells it.
    pub(crate) async fn sent_on(&self) {
        self.more(10).await;
    }

    /// Lets the streams that run end, and fails when any was broken.
    pub(crate) async fn end(self) -> u64 {
        self.stop.cancel();
        self.task.await.unwrap();
        self.streams.close();
        self.streams.wait().await;
        let broken = self.counts.broken.lock().unwrap().clone();
        let complete = self.counts.complete.load(Ordering::Relaxed);
        assert!(
            broken.is_empty(),
            "{} of {} broken: {broken:#?}",
            broken.len(),
            complete + broken.len() as u64
        );
        complete
    }
}

async fn one(chat: Chat, counts: Arc<Counts>) {
    match chat.stream().await {
        Ok(_) => {
            counts.complete.fetch_add(1, Ordering::Relaxed);
        }
        Err(broken) => counts.broken.lock().unwrap().push(broken),
    }
}
