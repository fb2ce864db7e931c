//! Brings each pool to the size last asked for.

use std::{collections::HashMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{event::ReplicaPlan, registrar::Registrar};

/// Pause after a failed step before the next one is tried.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How often a drain or a removal is tried; after that the backend is stopped without it.
const TRIES: u32 = 10;

/// Longest wait for a drained backend to fall idle; then it is stopped all the same.
const IDLE_DEADLINE: Duration = Duration::from_secs(120);

/// Longest wait for a removed backend to leave the fleet.
const LEAVE_DEADLINE: Duration = Duration::from_secs(120);

/// Starts and stops the backends of pools.
pub trait Launcher: Send + Sync + 'static {
    /// Starts a backend of `pool`; returns once it is healthy. This takes the cold start.
    fn launch(&self, pool: &str) -> impl Future<Output = anyhow::Result<SocketAddr>> + Send;

    /// True when the backend has no request, running or waiting.
    fn is_idle(&self, backend: SocketAddr) -> impl Future<Output = bool> + Send;

    /// Stops a backend.
    fn stop(&self, backend: SocketAddr) -> impl Future<Output = ()> + Send;
}

/// A step that an [`Autoscaler`](super::Autoscaler) took.
#[derive(Debug, Clone)]
pub enum Progress {
    /// A webhook was believed, and will be acted on.
    WebhookVerified {
        /// What it asks for.
        plan: ReplicaPlan,
    },
    /// A webhook was not believed.
    WebhookRefused {
        /// Why.
        why: String,
    },
    /// A backend begins its cold start.
    Launching {
        /// Its pool.
        pool: String,
    },
    /// A new backend is healthy and registered.
    Registered {
        /// Its pool.
        pool: String,
        /// Its address.
        backend: SocketAddr,
        /// Its cold start.
        after: Duration,
    },
    /// A backend gets no new requests.
    Draining {
        /// Its pool.
        pool: String,
        /// Its address.
        backend: SocketAddr,
    },
    /// A drained backend was stopped.
    Stopped {
        /// Its pool.
        pool: String,
        /// Its address.
        backend: SocketAddr,
    },
    /// A step failed; it may be tried again.
    Failed {
        /// Its pool.
        pool: String,
        /// What went wrong.
        error: String,
    },
}

/// One task per pool, and the sizes they are told.
#[derive(Debug)]
pub(super) struct Pools {
    targets: HashMap<String, watch::Sender<u32>>,
    tasks: TaskTracker,
}

impl Pools {
    pub(super) fn start<L: Launcher>(
        pools: Vec<(String, Vec<SocketAddr>)>,
        launcher: &Arc<L>,
        registrar: &Registrar,
        on_progress: &Arc<dyn Fn(&Progress) + Send + Sync>,
        stop: &CancellationToken,
    ) -> Self {
        let tasks = TaskTracker::new();
        let mut targets = HashMap::new();
        for (name, members) in pools {
            let (target, size) = watch::channel(u32::try_from(members.len()).unwrap_or(u32::MAX));
            targets.insert(name.clone(), target);
            let steps = Steps {
                pool: name,
                launcher: Arc::clone(launcher),
                registrar: registrar.clone(),
                on_progress: Arc::clone(on_progress),
            };
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! { () = stop.cancelled() => {}, () = follow(steps, members, size) => {} }
            });
        }
        tasks.close();
        Self { targets, tasks }
    }

    pub(super) fn targets(&self) -> HashMap<String, watch::Sender<u32>> {
        self.targets.clone()
    }

    pub(super) async fn wait(&self) {
        self.tasks.wait().await;
    }
}

/// Keeps launched plus launching backends at the size asked for. Several start at the same time; a launch
/// under way is never broken off, but what it brings may be drained again.
async fn follow<L: Launcher>(steps: Steps<L>, mut members: Vec<SocketAddr>, mut size: watch::Receiver<u32>) {
    let steps = Arc::new(steps);
    let mut launches = JoinSet::new();
    let mut drains = JoinSet::new();
    loop {
        let wanted = *size.borrow_and_update() as usize;
        for _ in members.len() + launches.len()..wanted {
            let steps = Arc::clone(&steps);
            launches.spawn(async move { steps.launch().await });
        }
        while members.len() + launches.len() > wanted
            && let Some(backend) = members.pop()
        {
            let steps = Arc::clone(&steps);
            drains.spawn(async move { steps.retire(backend).await });
        }
        tokio::select! {
            changed = size.changed() => if changed.is_err() { return },
            Some(launched) = launches.join_next() => members.extend(launched.ok().flatten()),
            Some(_) = drains.join_next() => {}
        }
    }
}

/// The steps in the life of a pool's backends.
struct Steps<L> {
    pool: String,
    launcher: Arc<L>,
    registrar: Registrar,
    on_progress: Arc<dyn Fn(&Progress) + Send + Sync>,
}

impl<L: Launcher> Steps<L> {
    async fn launch(&self) -> Option<SocketAddr> {
        let pool = self.pool.clone();
        (self.on_progress)(&Progress::Launching { pool: pool.clone() });
        let begin = Instant::now();
        let backend = match self.launcher.launch(&pool).await {
            Ok(backend) => backend,
            Err(error) => {
                self.failed(&error).await;
                return None;
            }
        };
        if let Err(error) = self.registrar.register(&pool, backend).await {
            self.launcher.stop(backend).await;
            self.failed(&error).await;
            return None;
        }
        (self.on_progress)(&Progress::Registered { pool, backend, after: begin.elapsed() });
        Some(backend)
    }

    async fn retire(&self, backend: SocketAddr) {
        let pool = &self.pool;
        if self.try_often(|| self.registrar.drain(pool, backend)).await {
            (self.on_progress)(&Progress::Draining { pool: pool.clone(), backend });
        }
        let deadline = Instant::now() + IDLE_DEADLINE;
        // Proxies learn of the drain a moment later than we do, so one idle look is not enough.
        let mut idle_looks = 0;
        while idle_looks < 3 && Instant::now() < deadline {
            sleep(Duration::from_secs(1)).await;
            idle_looks = if self.launcher.is_idle(backend).await { idle_looks + 1 } else { 0 };
        }
        self.try_often(|| self.registrar.remove(pool, backend)).await;
        // Until it has left the fleet its metrics are read; stopped before, it would look broken.
        let deadline = Instant::now() + LEAVE_DEADLINE;
        while Instant::now() < deadline && self.registrar.knows(backend).await.unwrap_or(true) {
            sleep(Duration::from_millis(500)).await;
        }
        self.launcher.stop(backend).await;
        (self.on_progress)(&Progress::Stopped { pool: pool.clone(), backend });
    }

    /// Takes a step up to [`TRIES`] times, with pauses; true when it was done.
    async fn try_often<F: Future<Output = anyhow::Result<()>>>(&self, step: impl Fn() -> F) -> bool {
        for _ in 0..TRIES {
            match step().await {
                Ok(()) => return true,
                Err(error) => self.failed(&error).await,
            }
        }
        false
    }

    async fn failed(&self, error: &anyhow::Error) {
        (self.on_progress)(&Progress::Failed { pool: self.pool.clone(), error: format!("{error:#}") });
        sleep(RETRY_PAUSE).await;
    }
}
