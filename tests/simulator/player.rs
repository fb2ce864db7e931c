//! An open-loop load player: requests leave when the demand says so, whether or not earlier ones were answered.
//!
//! Arrivals are a Poisson process with a rate that changes over time ([`Demand`]); sizes are drawn from recorded requests. Each
//! request is a streaming chat completion sent to the next target in turn, and is measured to its last token.

mod arrivals;
mod client;
mod request;
mod statistics;

#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::history::RequestSize;

use self::{arrivals::Arrivals, statistics::Recorder};
pub use self::{
    arrivals::Demand,
    client::loopback_client,
    request::{FailureCause, Outcome, Sender},
    statistics::{Failures, Histogram, ModelStatistics},
};

/// Where and how a [`Player`] sends.
#[derive(Debug, Clone)]
pub struct PlayerConfig {
    /// Addresses that take the requests in turn.
    pub targets: Vec<SocketAddr>,
    /// Seed of arrivals and sizes: the same seed gives the same requests at the same offsets.
    pub seed: u64,
    /// Requests in flight at most, per model. Arrivals beyond it are not sent, and counted.
    pub max_in_flight: usize,
    /// Longest time for one request, from sending it to its last token.
    pub request_timeout: Duration,
}

/// What is asked of one model.
#[derive(Clone)]
pub struct ModelLoad {
    /// Name of the model, as in the body of the requests.
    pub model: String,
    /// Requests per second over time.
    pub demand: Arc<dyn Demand>,
    /// Sizes to draw from; must not be empty.
    pub sizes: Arc<[RequestSize]>,
}

/// Requests that leave on time, until [`Player::stop`].
#[derive(Debug)]
pub struct Player {
    recorders: Vec<(String, Arc<Recorder>)>,
    no_more: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Player {
    /// Starts to send, from now on.
    ///
    /// # Errors
    ///
    /// When there is no target, a load has no sizes, or the HTTP client cannot be built.
    pub fn start(config: &PlayerConfig, loads: Vec<ModelLoad>) -> anyhow::Result<Self> {
        anyhow::ensure!(!config.targets.is_empty(), "a player needs a target");
        let client = loopback_client(config.request_timeout)?;
        let targets: Arc<[SocketAddr]> = config.targets.clone().into();
        let turn = Arc::new(AtomicUsize::new(0));
        let (no_more, abort) = (CancellationToken::new(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let mut recorders = Vec::new();
        for (index, load) in loads.into_iter().enumerate() {
            anyhow::ensure!(!load.sizes.is_empty(), "the load of {} has no request sizes", load.model);
            let recorder = Arc::new(Recorder::default());
            recorders.push((load.model.clone(), Arc::clone(&recorder)));
            let stream = Stream {
                sender: Sender { client: client.clone(), model: load.model.clone() },
                load,
                targets: Arc::clone(&targets),
                turn: Arc::clone(&turn),
                in_flight: Arc::new(Semaphore::new(config.max_in_flight)),
                recorder,
                tasks: tasks.clone(),
                abort: abort.clone(),
            };
            let seed = config.seed.wrapping_add(index as u64);
            let no_more = no_more.clone();
            tasks.spawn(async move {
                tokio::select! { () = no_more.cancelled() => {}, () = stream.run(seed) => {} }
            });
        }
        Ok(Self { recorders, no_more, abort, tasks })
    }

    /// Returns what was sent and measured so far, by model in the order of the loads.
    pub fn statistics(&self) -> Vec<(String, ModelStatistics)> {
        self.recorders.iter().map(|(model, recorder)| (model.clone(), recorder.snapshot())).collect()
    }

    /// Sends nothing more, and waits up to `grace` for the requests in flight. What is still
    /// unanswered then is given up, and stays counted as in flight.
    pub async fn stop(self, grace: Duration) -> Vec<(String, ModelStatistics)> {
        self.no_more.cancel();
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            self.abort.cancel();
            self.tasks.wait().await;
        }
        self.statistics()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.no_more.cancel();
        self.abort.cancel();
    }
}

/// The requests of one model.
struct Stream {
    sender: Sender,
    load: ModelLoad,
    targets: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
    in_flight: Arc<Semaphore>,
    recorder: Arc<Recorder>,
    tasks: TaskTracker,
    abort: CancellationToken,
}

impl Stream {
    async fn run(self, seed: u64) {
        let begin = Instant::now();
        let begin_unix_s =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let mut arrivals = Arrivals::new(Arc::clone(&self.load.demand), begin_unix_s, seed);
        // Sizes have their own generator, so that a change of the demand does not change them.
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5173);
        loop {
            let arrived = arrivals.advance();
            sleep_until(begin + Duration::from_secs_f64(arrivals.now_unix_s() - begin_unix_s)).await;
            if !arrived {
                continue;
            }
            let size = self.load.sizes[rng.random_range(0..self.load.sizes.len())];
            self.send(size);
        }
    }

    fn send(&self, size: RequestSize) {
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            self.recorder.over_the_cap();
            return;
        };
        let target = self.targets[self.turn.fetch_add(1, Ordering::Relaxed) % self.targets.len()];
        let (sender, recorder, abort) = (self.sender.clone(), Arc::clone(&self.recorder), self.abort.clone());
        self.recorder.sent();
        self.tasks.spawn(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                outcome = sender.send(target, size) => recorder.finished(&outcome),
            }
            drop(permit);
        });
    }
}
