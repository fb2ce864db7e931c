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
    Effects, Engine, EngineConfig, NewRequest, Profile, RequestId, SpeedClass, SubmitError, TokenGap,
};
use crate::player::Histogram;

use super::metrics::{FinishReason, Metrics};
use super::orca::Load;
use super::page::{self, PageInput};
use super::{Faults, InvalidFaults, ServerConfig, ServerState, WakeUps};

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
    pub(super) address: SocketAddr,
    /// Told to end the cold start.
    pub(super) open: Notify,
    context_tokens: u32,
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
    load: Load,
    lateness: Lateness,
    loading: bool,
}

#[derive(Debug, Default)]
struct Lateness {
    seconds: Histogram,
    max: Duration,
}

#[derive(Debug)]
struct Answering {
    sender: watch::Sender<Progress>,
    progress: Progress,
    reason: FinishReason,
}

impl Core {
    pub(super) fn new(config: &ServerConfig, profile: Profile, address: SocketAddr) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let ServerConfig { class, effects, seed, .. } = *config;
        let engine = Engine::new(EngineConfig { profile, effects, seed });
        Self {
            model: config.model.clone(),
            kill: CancellationToken::new(),
            started_at_unix_seconds: since_epoch.as_secs_f64(),
            address,
            open: Notify::new(),
            context_tokens: profile.context_tokens(),
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
                utilisation: Utilisation::new(UTILISATION_SECONDS),
                load: Load::default(),
                lateness: Lateness::default(),
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
        self.context_tokens
    }

    /// What an ORCA report says now.
    pub(super) fn orca_report(&self) -> serde_json::Value {
        let (live, now) = self.live();
        let busy_since = live.engine.busy_since();
        live.load.report(now, busy_since, &live.engine.state(), live.engine.profile().max_num_seqs)
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
            wake_ups: WakeUps {
                total: live.lateness.seconds.count(),
                late_p99_seconds: live.lateness.seconds.quantile_seconds(0.99).unwrap_or(0.0),
                late_max_seconds: live.lateness.max.as_secs_f64(),
            },
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
                Some(at) => {
                    tokio::time::sleep_until(self.origin + at).await;
                    let late = self.origin.elapsed().saturating_sub(at);
                    let lateness = &mut self.live().0.lateness;
                    lateness.seconds.record(late);
                    lateness.max = lateness.max.max(late);
                }
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
            self.load.observe(&iteration);
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
#[derive(Debug, Clone, Copy)]
pub(super) struct Utilisation {
    seconds: f64,
    pub(super) part: f64,
    at: f64,
}

impl Utilisation {
    /// One with this time constant, idle so far.
    pub(super) fn new(seconds: f64) -> Self {
        Self { seconds, part: 0.0, at: 0.0 }
    }

    pub(super) fn extend(&mut self, until: f64, busy: bool) {
        let seconds = until - self.at;
        if seconds <= 0.0 {
            return;
        }
        let target = if busy { 1.0 } else { 0.0 };
        self.part += (1.0 - (-seconds / self.seconds).exp()) * (target - self.part);
        self.at = until;
    }
}
