//! The engine tied to the clock, shared by the handlers and one driving task.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::{
    Effects, Engine, EngineConfig, NewRequest, RequestId, SpeedClass, SubmitError, TokenGap,
};

use super::metrics::{FinishReason, Metrics};
use super::page::{self, PageInput};
use super::{Faults, InvalidFaults, ServerConfig, ServerState};

/// Shortest time between two wake-ups of the driving task: keeps ten servers on two CPU cores cheap.
const QUANTUM: Duration = Duration::from_millis(20);
/// Time constant of the GPU gauge: DCGM samples a window of this order.
const UTILISATION_SECONDS: f64 = 0.5;

/// How far an answer is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) tokens: u32,
    pub(super) cached_tokens: u32,
    pub(super) done: bool,
}

/// A request inside the engine. Dropping it takes the request out.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) id: RequestId,
    pub(super) progress: watch::Receiver<Progress>,
    core: Arc<Core>,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.core.cancel(self.id);
    }
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) model: String,
    pub(super) kill: CancellationToken,
    pub(super) started_at_unix_seconds: f64,
    address: SocketAddr,
    class: SpeedClass,
    effects: Effects,
    seed: u64,
    origin: Instant,
    live: Mutex<Live>,
    /// Told when the idle engine gets work.
    work: Notify,
}

#[derive(Debug)]
struct Live {
    engine: Engine,
    requests: HashMap<RequestId, Answering>,
    metrics: Metrics,
    faults: Faults,
    errors: StdRng,
    utilisation: Utilisation,
    loading: bool,
}

#[derive(Debug)]
struct Answering {
    sender: watch::Sender<Progress>,
    progress: Progress,
    reason: FinishReason,
}

impl Core {
    pub(super) fn new(config: &ServerConfig, address: SocketAddr) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ServerConfig { class, effects, seed, .. } = *config;
        let engine = Engine::new(EngineConfig { profile: class.profile(), effects, seed });
        Self {
            model: config.model.clone(),
            kill: CancellationToken::new(),
            started_at_unix_seconds: since_epoch.as_secs_f64(),
            address,
            class,
            effects,
            seed,
            origin: Instant::now(),
            live: Mutex::new(Live {
                engine,
                requests: HashMap::new(),
                metrics: Metrics::new(),
                faults: Faults::default(),
                errors: StdRng::seed_from_u64(seed.wrapping_add(1)),
                utilisation: Utilisation::default(),
                loading: true,
            }),
            work: Notify::new(),
        }
    }

    fn now(&self) -> f64 {
        self.origin.elapsed().as_secs_f64()
    }

    /// The live part, advanced to now.
    fn live(&self) -> (MutexGuard<'_, Live>, f64) {
        // A panic elsewhere leaves counts that are at worst one step behind.
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        live.advance(now);
        (live, now)
    }

    pub(super) fn loaded(&self) {
        self.live().0.loading = false;
    }

    pub(super) fn submit(
        self: &Arc<Self>,
        request: NewRequest,
        reason: FinishReason,
    ) -> Result<Ticket, SubmitError> {
        let (mut live, now) = self.live();
        let id = live.engine.submit(now, request)?;
        let (sender, receiver) = watch::channel(Progress::default());
        live.requests.insert(id, Answering { sender, progress: Progress::default(), reason });
        drop(live);
        self.work.notify_one();
        Ok(Ticket { id, progress: receiver, core: Arc::clone(self) })
    }

    fn cancel(&self, id: RequestId) {
        let (mut live, _) = self.live();
        if live.engine.cancel(id) {
            live.requests.remove(&id);
            live.metrics.finished(FinishReason::Abort);
        }
    }

    pub(super) fn faults(&self) -> Faults {
        self.live().0.faults
    }

    pub(super) fn set_faults(&self, faults: Faults) -> Result<(), InvalidFaults> {
        faults.check()?;
        let (mut live, now) = self.live();
        if live.faults.hang {
            live.engine.stall_until(now);
        }
        live.engine.set_slow_factor(faults.slow_factor);
        live.faults = faults;
        drop(live);
        self.work.notify_one();
        if faults.die {
            self.kill.cancel();
        }
        Ok(())
    }

    /// Draws whether the next request fails.
    pub(super) fn draw_error(&self) -> bool {
        let (mut live, _) = self.live();
        let rate = live.faults.error_rate;
        let fails = live.errors.random_bool(rate);
        live.metrics.injected_errors += u64::from(fails);
        fails
    }

    pub(super) fn context_tokens(&self) -> u32 {
        self.class.profile().context_tokens()
    }

    pub(super) fn state(&self) -> ServerState {
        let (live, now) = self.live();
        self.state_of(&live, now)
    }

    fn state_of(&self, live: &Live, now: f64) -> ServerState {
        ServerState {
            simulated: true,
            model: self.model.clone(),
            address: self.address,
            class: self.class,
            effects: self.effects,
            seed: self.seed,
            loading: live.loading,
            engine: live.engine.state(),
            gpu_utilisation_percent: live.gpu_percent(now),
            faults: live.faults,
        }
    }

    /// The metrics page, or what the fault `metrics_garbage` makes of it.
    pub(super) fn page(&self) -> String {
        let (live, now) = self.live();
        let state = self.state_of(&live, now);
        if live.faults.metrics_garbage {
            return page::render_garbage(&state, self.started_at_unix_seconds);
        }
        page::render(&PageInput {
            state: &state,
            profile: live.engine.profile(),
            metrics: &live.metrics,
            started_at_unix_seconds: self.started_at_unix_seconds,
        })
    }

    /// Hands over tokens as the engine makes them. Never returns.
    pub(super) async fn drive(&self) {
        loop {
            let next = {
                let (live, now) = self.live();
                let end = live.engine.next_end().filter(|_| !live.faults.hang);
                end.map(|end| Duration::from_secs_f64(end).max(Duration::from_secs_f64(now) + QUANTUM))
            };
            match next {
                Some(at) => tokio::time::sleep_until(self.origin + at).await,
                None => self.work.notified().await,
            }
        }
    }
}

impl Live {
    fn advance(&mut self, now: f64) {
        if self.faults.hang {
            return;
        }
        let mut touched = Vec::new();
        for iteration in self.engine.advance(now) {
            self.utilisation.extend(iteration.started_at, false);
            self.utilisation.extend(iteration.ended_at, true);
            self.metrics.observe(&iteration);
            for output in &iteration.outputs {
                let Some(answering) = self.requests.get_mut(&output.id) else { continue };
                answering.progress.tokens += 1;
                if let TokenGap::First { cached_tokens, .. } = output.gap {
                    answering.progress.cached_tokens = cached_tokens;
                }
                if output.completion.is_some() {
                    answering.progress.done = true;
                    self.metrics.finished(answering.reason);
                }
                touched.push(output.id);
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some(answering) = self.requests.get(&id) else { continue };
            answering.sender.send_replace(answering.progress);
            if answering.progress.done {
                self.requests.remove(&id);
            }
        }
    }

    /// High with the first active request and hardly higher with more, as on a real GPU.
    fn gpu_percent(&self, now: f64) -> f64 {
        let mut utilisation = self.utilisation;
        if let Some(since) = self.engine.busy_since() {
            utilisation.extend(since, false);
            utilisation.extend(now, true);
        } else {
            utilisation.extend(now, false);
        }
        let running = self.engine.state().running as f64 / self.engine.profile().max_num_seqs as f64;
        utilisation.part * (95.0 + 5.0 * running)
    }
}

/// Exponentially smoothed part of the time in which the engine worked.
#[derive(Debug, Clone, Copy, Default)]
struct Utilisation {
    part: f64,
    at: f64,
}

impl Utilisation {
    fn extend(&mut self, until: f64, busy: bool) {
        let seconds = until - self.at;
        if seconds <= 0.0 {
            return;
        }
        let target = if busy { 1.0 } else { 0.0 };
        self.part += (1.0 - (-seconds / UTILISATION_SECONDS).exp()) * (target - self.part);
        self.at = until;
    }
}
