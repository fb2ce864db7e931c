//! One run of the demo: start, play, summary, stop.

use std::{
    fs::{self, File},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::autoscaler::{Autoscaler, AutoscalerConfig, Progress, Registrar, Secret};
use crate::history::request_sizes;
use crate::player::{Demand, ModelLoad, Player, PlayerConfig, loopback_client};

use super::{
    api::Api,
    checks,
    claim::claim,
    fleet::Fleet,
    journal::Journal,
    observations::Observations,
    options::DemoOptions,
    outcome::{ModelForecasts, Outcome, SlowedTraffic},
    processes::Processes,
    scaling_log::ScalingLog,
    script::{Action, SLOW_FACTOR, Script},
    summary,
    traffic::Traffic,
    world::{self, MODELS, STEP_SECONDS},
};

/// Longest wait for a program to come up; a first start creates a database.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How much of the past is posted to learn from: ten recorded days.
const HISTORY_SECONDS: i64 = 10 * 144 * STEP_SECONDS as i64;

/// Requests in flight at most, per model; far more than a healthy fleet has.
const MAX_IN_FLIGHT: usize = 1000;

/// Longest time for one request of the load.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Time that the requests in flight get at the end.
const ANSWER_GRACE: Duration = Duration::from_secs(30);

/// Time that the Envoys get at the end to take the last configuration.
const SYNC_GRACE: Duration = Duration::from_secs(10);

/// Everything that runs. Dropping it kills the child processes.
pub(super) struct Session {
    options: DemoOptions,
    journal: Journal,
    processes: Processes,
    fleet: Option<Arc<Fleet>>,
    autoscaler: Option<Autoscaler>,
    player: Option<Player>,
    scaling: Arc<Mutex<ScalingLog>>,
    /// Held as long as anything may run.
    lock: Option<File>,
}

/// The moment of the first request.
#[derive(Clone, Copy)]
struct Begin {
    at: Instant,
    unix_s: f64,
}

/// What [`Session::play`] needs of what [`Session::start`] made.
struct Stage {
    api: Api,
    fleet: Arc<Fleet>,
    slow_candidate: SocketAddr,
    begin: Begin,
}

impl Session {
    pub(super) fn new(options: DemoOptions) -> Self {
        Self {
            options,
            journal: Journal::new(),
            processes: Processes::default(),
            fleet: None,
            autoscaler: None,
            player: None,
            scaling: Arc::default(),
            lock: None,
        }
    }

    /// Runs until `stop`, or until the seconds are over; true when nothing that was checked is missing.
    pub(super) async fn run(&mut self, stop: &CancellationToken) -> anyhow::Result<bool> {
        let stage = tokio::select! {
            stage = self.start() => stage?,
            () = stop.cancelled() => {
                self.journal.line("interrupted before the first request");
                return Ok(false);
            }
        };
        let outcome = self.play(stage, stop).await?;
        self.journal.plain(summary::text(&outcome));
        let Some(seconds) = self.options.seconds else { return Ok(true) };
        if outcome.seconds < seconds as f64 {
            self.journal.plain(format!("Interrupted before {seconds} s: not checked."));
            return Ok(false);
        }
        let checks = checks::judge(&outcome);
        let missing: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
        self.journal.plain(format!("Checks: {} of {} passed", checks.len() - missing.len(), checks.len()));
        for check in &missing {
            self.journal.plain(format!("  did not happen: {} ({})", check.expectation, check.seen));
        }
        Ok(missing.is_empty())
    }

    /// Stops everything in order; true when nothing is left and nothing had to be killed.
    pub(super) async fn stop(&mut self) -> bool {
        self.journal.plain("Stopping.");
        if let Some(player) = self.player.take() {
            player.stop(Duration::ZERO).await;
        }
        if let Some(autoscaler) = self.autoscaler.take() {
            autoscaler.stop().await;
        }
        let ended = self.processes.stop().await;
        if let Some(fleet) = self.fleet.take() {
            fleet.stop_all().await;
        }
        for name in &ended.killed {
            self.journal.plain(format!("{name} did not stop when asked, and was killed."));
        }
        for process in &ended.left {
            self.journal.plain(format!("{} (process {}) is still there.", process.name, process.pid));
        }
        let clean = ended.killed.is_empty() && ended.left.is_empty();
        if clean {
            self.journal.plain("Stopped; nothing is left running.");
        }
        clean
    }

    async fn start(&mut self) -> anyhow::Result<Stage> {
        let folder = &self.options.state_dir;
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        self.options.state_dir = folder.canonicalize()?;
        self.lock = Some(claim(&self.options.state_dir)?);
        let state_dir = self.options.state_dir.clone();
        // Each run replays the same days at other times: what the last one learned would contradict it.
        let data = state_dir.join(world::DATA);
        if data.exists() {
            fs::remove_dir_all(&data).with_context(|| format!("cannot remove {}", data.display()))?;
        }
        self.journal.line(format!("logs and configuration are in {}", state_dir.display()));

        let client = loopback_client(Duration::from_secs(10))?;
        let api = Api::new(client.clone(), self.options.api());
        let fleet = Arc::new(Fleet::new(self.options.backends(), self.options.seed, client.clone()));
        self.fleet = Some(Arc::clone(&fleet));
        let servers = fleet.start_first()?;
        let slow_candidate = servers
            .first()
            .and_then(|(_, addresses)| addresses.first().copied())
            .context("the first pool has no server")?;
        let secret = Secret::random();
        let registrar = Registrar::new(client.clone(), self.options.api());
        let autoscaler = AutoscalerConfig {
            listen: self.options.webhook(),
            secret: secret.clone(),
            pools: servers
                .iter()
                .map(|(pool, addresses)| (pool.name.to_owned(), addresses.clone()))
                .collect(),
            registrar,
            on_progress: self.tell_progress(),
        };
        self.autoscaler = Some(Autoscaler::start(autoscaler, Arc::clone(&fleet)).await?);
        let count: usize = servers.iter().map(|(_, addresses)| addresses.len()).sum();
        self.journal.line(format!("{count} simulated model servers started"));

        let config = state_dir.join("clairvoy.yaml");
        fs::write(&config, world::config_yaml(&self.options, &servers))
            .with_context(|| format!("cannot write {}", config.display()))?;
        self.processes.start_clairvoy(&self.options, &config, &secret)?;
        let up = async || api.is_alive().await;
        self.processes.wait_until("an answer from clairvoy", START_LIMIT, up).await?;
        self.journal.line(format!("clairvoy is up: dashboard at http://{}/", self.options.api()));

        let (anchor, posted_until) = self.post_history(&api).await?;
        self.start_envoys(&client).await?;
        self.start_player(&api, anchor, posted_until).await.map(|begin| Stage {
            api,
            fleet,
            slow_candidate,
            begin,
        })
    }

    fn tell_progress(&self) -> Arc<dyn Fn(&Progress) + Send + Sync> {
        let (scaling, journal) = (Arc::clone(&self.scaling), self.journal.clone());
        Arc::new(move |progress| {
            let line = scaling.lock().unwrap_or_else(PoisonError::into_inner).note(progress);
            journal.line(line);
        })
    }

    /// Posts ten recorded days up to the current step. Returns where the ramp begins (a few seconds from now), and
    /// the first step that was not posted.
    async fn post_history(&self, api: &Api) -> anyhow::Result<(i64, i64)> {
        let step = i64::from(STEP_SECONDS);
        let now = unix_seconds() as i64;
        let anchor = (now + 2).div_euclid(step) * step + step;
        let until = now.div_euclid(step) * step;
        let mut rows = String::new();
        for model in MODELS {
            rows += &world::replay(model, anchor)?.csv_rows(model, anchor - HISTORY_SECONDS, until);
        }
        let taken = api.post_history(&rows).await?;
        self.journal.line(format!("{taken} steps of recorded demand given to learn from"));
        Ok((anchor, until))
    }

    async fn start_envoys(&mut self, client: &reqwest::Client) -> anyhow::Result<()> {
        let edges = world::edges(&self.options);
        for edge in &edges {
            self.processes.start_envoy(&self.options, edge).await?;
        }
        for edge in &edges {
            let what = format!("an answer to a request through {}", edge.node_id);
            let serves = async || {
                let ready = client.get(format!("http://{}/ready", edge.admin)).send().await;
                ready.is_ok_and(|response| response.status().is_success())
                    && serves_every_model(client, edge.listen).await
            };
            self.processes.wait_until(&what, START_LIMIT, serves).await?;
        }
        self.journal.line(format!("{} Envoys serve every model", edges.len()));
        Ok(())
    }

    async fn start_player(&mut self, api: &Api, anchor: i64, posted_until: i64) -> anyhow::Result<Begin> {
        let step = i64::from(STEP_SECONDS);
        let sizes: Arc<[_]> = request_sizes()?.into();
        let mut loads = Vec::new();
        let mut missed = String::new();
        let now = unix_seconds() as i64;
        for model in MODELS {
            let replay = world::replay(model, anchor)?;
            // The steps that went by while the Envoys came up, without load.
            missed += &replay.csv_rows(model, posted_until, now.div_euclid(step) * step);
            let demand: Arc<dyn Demand> = Arc::new(replay);
            loads.push(ModelLoad { model: model.to_owned(), demand, sizes: Arc::clone(&sizes) });
        }
        if !missed.is_empty() {
            api.post_history(&missed).await?;
        }
        let config = PlayerConfig {
            targets: world::edges(&self.options).iter().map(|edge| edge.listen).collect(),
            seed: self.options.seed,
            max_in_flight: MAX_IN_FLIGHT,
            request_timeout: REQUEST_TIMEOUT,
        };
        let begin = Begin { at: Instant::now(), unix_s: unix_seconds() };
        self.journal.begin(begin.at);
        self.player = Some(Player::start(&config, loads)?);
        self.journal.line(match self.options.seconds {
            Some(seconds) => format!("requests begin; the end is in {seconds} s"),
            None => "requests begin; Ctrl-C ends it".to_owned(),
        });
        Ok(begin)
    }

    async fn play(&mut self, stage: Stage, stop: &CancellationToken) -> anyhow::Result<Outcome> {
        let Stage { api, fleet, slow_candidate, begin } = stage;
        let slow_model = world::POOLS[0].model;
        let mut observations = Observations::new(world::edges(&self.options).len());
        let (mut script, mut traffic) = (Script::new(), Traffic::default());
        let mut slowed_traffic = SlowedTraffic::default();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! { _ = ticks.tick() => {}, () = stop.cancelled() => break }
            let at = begin.at.elapsed().as_secs_f64();
            if self.options.seconds.is_some_and(|seconds| at >= seconds as f64) {
                break;
            }
            self.processes.check()?;
            self.observe(&api, &mut observations, at).await;
            traffic.sample(at, fleet.taken(slow_model));
            while let Some(action) = script.due(at) {
                let share = traffic.share(slow_candidate);
                if action == Action::Slow {
                    fleet.slow(slow_candidate, SLOW_FACTOR)?;
                    observations.slow(at, slow_candidate);
                    slowed_traffic.before = share;
                    self.journal.line(format!("{slow_candidate} becomes {SLOW_FACTOR:.0} times slower"));
                } else {
                    fleet.slow(slow_candidate, 1.0)?;
                    observations.recover(at);
                    slowed_traffic.at_the_end = share;
                    self.journal.line(format!("{slow_candidate} is well again"));
                }
            }
            self.show_live(&observations);
        }
        let seconds = begin.at.elapsed().as_secs_f64();
        self.journal.line("no more requests");
        let load = match self.player.take() {
            Some(player) => player.stop(ANSWER_GRACE).await,
            None => Vec::new(),
        };
        let expected = world::edges(&self.options).len();
        let deadline = Instant::now() + SYNC_GRACE;
        loop {
            self.observe(&api, &mut observations, begin.at.elapsed().as_secs_f64()).await;
            let settled = observations.proxies_in_sync() == expected || stop.is_cancelled();
            if settled || Instant::now() >= deadline {
                break;
            }
            sleep(Duration::from_millis(500)).await;
        }
        let mut forecasts = Vec::new();
        for model in MODELS {
            let demand = api.demand(model, seconds as u64 + 120).await?;
            forecasts.push(ModelForecasts::new(&demand, begin.unix_s));
        }
        Ok(Outcome {
            seconds,
            proxies_expected: expected,
            observations,
            load,
            webhooks: self.autoscaler.as_ref().map(Autoscaler::counts).unwrap_or_default(),
            scaling: self.scaling.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            forecasts,
            slowed_traffic,
        })
    }

    async fn observe(&self, api: &Api, observations: &mut Observations, at: f64) {
        for address in &self.scaling.lock().unwrap_or_else(PoisonError::into_inner).added {
            observations.added(*address);
        }
        match api.state().await {
            Ok(state) => {
                for line in observations.observe(at, state) {
                    self.journal.line(line);
                }
            }
            Err(error) => self.journal.line(format!("{error:#}")),
        }
    }

    fn show_live(&self, observations: &Observations) {
        let Some(player) = &self.player else { return };
        let (mut sent, mut failed) = (0, 0);
        for (_, statistics) in player.statistics() {
            sent += statistics.sent;
            failed += statistics.failures.total();
        }
        let demands = observations
            .last
            .models
            .iter()
            .filter_map(|model| Some(format!("{} {:.1} rps", model.name, model.demand_rps?)));
        let demands = demands.collect::<Vec<_>>().join(", ");
        self.journal.live(format!("        {demands}; {sent} requests, {failed} failed"));
    }
}

/// True when a small request for each model is answered through the Envoy at `gateway`.
async fn serves_every_model(client: &reqwest::Client, gateway: SocketAddr) -> bool {
    for model in MODELS {
        let body = serde_json::json!({
            "model": model,
            "max_tokens": 1,
            "messages": [{ "role": "user", "content": "Are you there?" }],
        });
        let request = client.post(format!("http://{gateway}/v1/chat/completions")).json(&body);
        if !request.send().await.is_ok_and(|response| response.status().is_success()) {
            return false;
        }
    }
    true
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
