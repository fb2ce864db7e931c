//! Whatever becomes of Clairvoy, requests go by capacity shares within seconds, none fails, no stream breaks; and they go
//! over to predictions again in small steps.

use std::io::Write as _;
use std::time::{Duration, Instant};

use chrono::Utc;
use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;

use crate::support::{
    Chat, Clairvoy, Envoy, Host, Load, Site, Tunnel, backend, holds_for, model_server, send_signal, until,
};

/// Envoys forget 6 s after the last heartbeat; telemetry is stale after 5 s, and is looked at once a second. The rest is
/// room for a busy machine.
const FALLS_WITHIN: Duration = Duration::from_secs(10);
/// An Envoy that is told falls at once.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// A query waits for 5 s for a connection that answers.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// With `CLAIRVOY_LONG=1` each test is run so often, one run after the other.
const ROUNDS: u32 = 20;
/// Telemetry that has to come in, and ten steps of a second.
const RISES_WITHIN: u64 = 60;

async fn again_and_again(name: &str, test: impl AsyncFn()) {
    let is_long = std::env::var_os("CLAIRVOY_LONG").is_some_and(|value| value == "1");
    let rounds = if is_long { ROUNDS } else { 1 };
    for round in 1..=rounds {
        test().await;
        if is_long {
            // Past the harness, which keeps what is printed to itself.
            let mut stdout = std::io::stdout();
            writeln!(stdout, "{name}: {round} of {rounds} rounds passed").unwrap();
        }
    }
}

/// A model with three backends in two pools, one Envoy, and clients, some of whose streams last for longer than a change
/// takes.
struct Place {
    short: Load,
    long: Load,
    envoy: Envoy,
    servers: Vec<SimulatedServer>,
}

impl Place {
    fn configure(site: &Site) -> Vec<SimulatedServer> {
        Self::configure_with(site, "", "")
    }

    /// With further models, and with what follows the pools.
    fn configure_with(site: &Site, models: &str, rest: &str) -> Vec<SimulatedServer> {
        let servers: Vec<_> = (0..3).map(|_| model_server("chat", SpeedClass::Fast)).collect();
        let [a, b, c] = [0, 1, 2].map(|index: usize| servers[index].address());
        site.configure(&format!(
            "models:\n  - {{ name: chat, pools: [a, b] }}\n{models}\
             pools:\n  - {{ name: a, capacity_rps: 6, backends: [\"{a}\"] }}\n  \
             - {{ name: b, capacity_rps: 2, backends: [\"{b}\", \"{c}\"] }}\n{rest}"
        ));
        servers
    }

    async fn new(site: &Site, servers: Vec<SimulatedServer>) -> Self {
        let envoy = site.envoy().await;
        let short = Load::start(Chat::new(site.gateway, "chat", 10), 10.0);
        let long = Load::start(Chat::new(site.gateway, "chat", 1200), 0.5);
        let place = Self { short, long, envoy, servers };
        place.rises().await;
        place
    }

    /// Percent of the requests that Envoy sends by predictions.
    async fn percent(&self) -> u64 {
        self.envoy.predictive_percent("chat").await
    }

    /// Waits until all requests go by predictions, in steps of a tenth, one a second.
    async fn rises(&self) {
        let mut seen: Option<(Instant, u64)> = None;
        until("all requests go by predictions", RISES_WITHIN, async || {
            let asked = Instant::now();
            let percent = self.percent().await;
            if let Some((since, before)) = seen.replace((asked, percent)) {
                // Of two looks that are far apart each may have missed a part of a second, and a step may be late.
                let steps = (since.elapsed().as_secs_f64() / 0.8) as u64 + 2;
                assert!(percent <= before + 10 * steps, "{before} to {percent} in {:?}", since.elapsed());
            }
            if percent == 100 { Ok(()) } else { Err(format!("{percent} %")) }
        })
        .await;
        self.steers().await;
    }

    /// Waits until more requests were answered, all of which went by predictions.
    async fn steers(&self) {
        self.short.sent_on().await;
        let before = self.envoy.sent("chat").await;
        self.short.more(20).await;
        let after = self.envoy.sent("chat").await;
        // Some of those that were answered had been sent before.
        assert!(after.predicted >= before.predicted + 10, "{before:?} {after:?}");
        assert_eq!(after.by_capacity, before.by_capacity);
    }

    /// Waits until no request goes by predictions, and counts where they go then.
    async fn falls(&self, since: Instant, within: Duration) {
        until("no request goes by predictions", 60, async || match self.percent().await {
            0 => Ok(()),
            percent => Err(format!("{percent} %")),
        })
        .await;
        assert!(since.elapsed() <= within, "after {:?}", since.elapsed());
        let shares = || async {
            let hosts = self.envoy.hosts_of("!static/chat").await;
            self.servers.iter().map(|server| hosts[&server.address()].requests).collect::<Vec<_>>()
        };
        self.short.sent_on().await;
        let (before, sent) = (shares().await, self.envoy.sent("chat").await);
        self.short.more(30).await;
        let (after, now) = (shares().await, self.envoy.sent("chat").await);
        assert_eq!(now.predicted, sent.predicted, "all new requests go to the static twin");
        let got: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
        let share = got[0] as f64 / got.iter().sum::<u64>() as f64;
        assert!((share - 0.6).abs() < 0.1, "6 of 10 requests/s are the first one's: {got:?}");
    }

    /// Nothing has failed, and nothing does until the last stream has ended.
    async fn end(self) {
        let Self { short, long, envoy, servers } = self;
        assert!(short.end().await > 0);
        assert!(long.end().await > 0);
        drop((envoy, servers));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clairvoy_leaves_capacity_shares_and_one_that_is_stopped_tells_them() {
    again_and_again("killed_and_stopped", killed_and_stopped).await;
}

async fn killed_and_stopped() {
    let site = Site::new();
    let idle =
        [SpeedClass::Fast, SpeedClass::Slow, SpeedClass::Slow].map(|class| model_server("idle", class));
    let [c, d, e] = idle.each_ref().map(SimulatedServer::address);
    let pools =
        format!("  - {{ name: c, backends: [\"{c}\"] }}\n  - {{ name: d, backends: [\"{d}\", \"{e}\"] }}\n");
    let servers = Place::configure_with(&site, "  - { name: idle, pools: [c, d] }\n", &pools);
    let clairvoy = site.serve().await;
    let place = Place::new(&site, servers).await;

    let killed = Instant::now();
    clairvoy.kill();
    place.falls(killed, FALLS_WITHIN).await;
    // Nobody has asked for this model before, so nothing is known of what its servers can do.
    let asks = Chat::new(site.gateway, "idle", 1);
    let answers = join_all((0..30).map(|_| asks.stream())).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let hosts = place.envoy.hosts_of("!static/idle").await;
    let got = idle.each_ref().map(|server| hosts[&server.address()].requests);
    // Which of its equals serves a request is Envoy's choice; idle ones it draws by lot.
    assert!((9..=11).contains(&got[0]) && got.iter().sum::<u64>() == 30, "as many as servers: {got:?}");
    let clairvoy = site.serve().await;
    place.rises().await;

    let stopped = Instant::now();
    send_signal(clairvoy.pid(), Signal::TERM);
    place.falls(stopped, TOLD_WITHIN).await;
    assert!(clairvoy.stop().success());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_clairvoy_and_one_out_of_reach_leave_capacity_shares() {
    again_and_again("frozen_and_out_of_reach", frozen_and_out_of_reach).await;
}

async fn frozen_and_out_of_reach() {
    let mut site = Site::new();
    let servers = Place::configure(&site);
    let clairvoy = site.serve().await;
    let tunnel = Tunnel::to(site.xds).await;
    site.xds = tunnel.address;
    let place = Place::new(&site, servers).await;

    let frozen = Instant::now();
    send_signal(clairvoy.pid(), Signal::STOP);
    place.falls(frozen, FALLS_WITHIN).await;
    send_signal(clairvoy.pid(), Signal::CONT);
    place.rises().await;

    let blocked = Instant::now();
    tunnel.block();
    place.falls(blocked, FALLS_WITHIN).await;
    lost(&clairvoy).await;
    tunnel.unblock();
    place.rises().await;
    place.end().await;
}

/// Waits until Clairvoy knows that no Envoy is there.
async fn lost(clairvoy: &Clairvoy) {
    clairvoy.state_where("the Envoy is gone", |state| state.proxies.is_empty()).await;
    clairvoy
        .state_where("nobody relies on predictions", |state| state.models[0].predictive_ratio == 0.0)
        .await;
}

/// Asks for what only the database knows.
async fn history(clairvoy: &Clairvoy) -> StatusCode {
    let request = clairvoy.request(Method::GET, "/api/v1/history?model=chat&metric=running");
    request.timeout(REFUSED_WITHIN).send().await.unwrap().status()
}

async fn tells_history(clairvoy: &Clairvoy) {
    until("the database is there", 30, async || match history(clairvoy).await {
        StatusCode::OK => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stale_telemetry_leaves_capacity_shares_and_an_absent_database_does_not() {
    again_and_again("stale_telemetry_and_absent_database", stale_telemetry_and_absent_database).await;
}

async fn stale_telemetry_and_absent_database() {
    let site = Site::new();
    let servers = Place::configure(&site);
    let clairvoy = site.serve().await;
    let place = Place::new(&site, servers).await;

    tells_history(&clairvoy).await;
    let absent = clairvoy.without_database();
    let steers =
        holds_for("predictions steer without the database", 10.0, async || match place.percent().await {
            100 => Ok(()),
            percent => Err(format!("{percent} %")),
        });
    let is_refused = async {
        // Each takes half of the time for which they have to steer.
        for _ in 0..2 {
            assert_eq!(history(&clairvoy).await, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    tokio::join!(steers, is_refused);
    place.steers().await;
    let is_fresh = |state: &clairvoy::view::State| {
        state.backends.iter().all(|backend| backend.telemetry_age_seconds.is_some_and(|age| age < 2.0))
    };
    clairvoy.state_where("telemetry is fresh without the database", is_fresh).await;
    drop(absent);
    tells_history(&clairvoy).await;

    let silent = Instant::now();
    let hang = |servers: &[SimulatedServer], metrics_hang| {
        let set = |server: &SimulatedServer| server.set_faults(Faults { metrics_hang, ..Faults::default() });
        servers.iter().for_each(|server| set(server).unwrap());
    };
    // More than half of them are enough; then all.
    hang(&place.servers[..2], true);
    place.falls(silent, FALLS_WITHIN).await;
    clairvoy.event("model chat goes by capacity shares: the telemetry of 1 of 3 backends").await;
    hang(&place.servers[2..], true);
    let told = |state: &clairvoy::view::State| {
        let model = &state.models[0];
        model.predictive_ratio == 0.0
            && model.fallback.as_ref().is_some_and(|why| why.contains("0 of 3 backends"))
    };
    clairvoy.state_where("it says so", told).await;
    let explains = async |is_in_force: bool| {
        let (config, backend) = (site.config_file(), place.servers[0].address().to_string());
        let arguments = ["explain", &backend, "--config", config.to_str().unwrap()];
        until("it is explained", 30, async || {
            let said = tokio::task::block_in_place(|| site.run(&arguments));
            let text = String::from_utf8_lossy(&said.stdout);
            let is_told = text.contains("requests that arrive for the model")
                && text.contains("not in force: since ") != is_in_force;
            if is_told { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    };
    explains(false).await;
    hang(&place.servers, false);
    place.rises().await;
    clairvoy.event("model chat goes by predictions again").await;
    explains(true).await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_backend_that_tells_nothing_goes_by_its_capacity_and_nothing_waits_for_forecasts() {
    again_and_again("one_silent_backend", one_silent_backend).await;
}

/// The first forecast is made when a step is over, which this one is not for ten minutes.
fn minutes_of_a_long_step() -> i64 {
    let now = Utc::now().timestamp() / 60;
    (30..=60).rev().find(|step| step - now % step > 10).unwrap()
}

async fn one_silent_backend() {
    let site = Site::new();
    let step = minutes_of_a_long_step();
    let forecast = format!("forecast: {{ step: {step}m, season: {}m, horizons: [{step}m] }}\n", 24 * step);
    let servers = Place::configure_with(&site, "", &forecast);
    let clairvoy = site.serve().await;
    let place = Place::new(&site, servers).await;
    let first = |state: &clairvoy::view::State| backend(state, place.servers[0].address()).unwrap().clone();
    let beside_capacity = |state: &clairvoy::view::State| first(state).share / first(state).capacity_share;
    // In its first seconds nobody can tell a throttled engine from one that is slow by nature.
    let is_known = |state: &clairvoy::view::State| {
        first(state).profile.is_some_and(|profile| profile.observations >= 30.0)
    };
    clairvoy.state_where("its usual speed is known", is_known).await;
    let set = |faults: Faults| place.servers[0].set_faults(faults).unwrap();
    set(Faults { slow_factor: 4.0, ..Faults::default() });
    clairvoy.state_where("a slow one gets less", |state| beside_capacity(state) < 0.8).await;
    set(Faults { slow_factor: 4.0, metrics_hang: true, ..Faults::default() });
    let forgotten = |state: &clairvoy::view::State| (beside_capacity(state) - 1.0).abs() < 0.05;
    let state = clairvoy.state_where("nothing is known of it any more", forgotten).await;
    assert!(state.models[0].forecast.is_none(), "there was no forecast yet");
    assert_eq!(place.percent().await, 100, "the others go by predictions");
    place.short.more(20).await;
    // Otherwise its long streams take a minute.
    set(Faults::default());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_only_advised_goes_by_capacity_and_a_canary_by_its_share() {
    again_and_again("advised_and_canary", advised_and_canary).await;
}

async fn advised_and_canary() {
    let site = Site::new();
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let rung = |rung: &str| {
        let [a, b] = servers.each_ref().map(SimulatedServer::address);
        site.configure(&format!(
            "models:\n  - {{ name: chat, pools: [a], {rung} }}\npools:\n  - {{ name: a, backends: [\"{a}\", \"{b}\"] }}\n"
        ));
    };
    rung("rung: advise");
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 10), 20.0);
    let advised = |state: &clairvoy::view::State| {
        state.models[0].rung == "advise"
            && state.backends.iter().all(|backend| backend.advised_share.is_some())
    };
    clairvoy.state_where("shares are advised", advised).await;
    load.more(200).await;
    assert_eq!(envoy.sent("chat").await.predicted, 0);

    rung("rung: canary, canary: { share: 0.3 }");
    let ratio = |state: &clairvoy::view::State| (state.models[0].predictive_ratio - 0.3).abs() < 1e-9;
    clairvoy.state_where("the canary steers its share", ratio).await;
    clairvoy.in_sync().await;
    let before = envoy.sent("chat").await;
    load.more(300).await;
    let after = envoy.sent("chat").await;
    let (predicted, by_capacity) =
        (after.predicted - before.predicted, after.by_capacity - before.by_capacity);
    let share = predicted as f64 / (predicted + by_capacity) as f64;
    // Six standard deviations of 300 draws.
    assert!((share - 0.3).abs() < 0.16, "{predicted} of {}", predicted + by_capacity);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_backend_takes_nothing_of_the_share_of_its_group() {
    again_and_again("draining_backend", draining_backend).await;
}

async fn draining_backend() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let [first, second, other] = servers.each_ref().map(SimulatedServer::address);
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a, b], rung: shadow }}\n\
         balance: {{ drain_time: 120s }}\n\
         pools:\n  - {{ name: a, capacity_rps: 2, backends: [\"{second}\"] }}\n  \
         - {{ name: b, capacity_rps: 2, backends: [\"{other}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    assert_eq!(clairvoy.register("a", first).await, StatusCode::CREATED);
    envoy.host_where("it has joined", "chat", first, |host| host.is_some()).await;
    assert_eq!(clairvoy.drain("a", first).await, StatusCode::ACCEPTED);
    let drains = |host: Option<&Host>| host.is_some_and(|host| host.health == "DRAINING");
    envoy.host_where("it drains", "chat", first, drains).await;
    let load = Load::start(Chat::new(site.gateway, "chat", 5), 20.0);
    load.more(80).await;
    let hosts = envoy.hosts("chat").await;
    let (left, right) = (hosts[&second].requests as f64, hosts[&other].requests as f64);
    assert!((left / (left + right) - 0.5).abs() < 0.05, "{hosts:?}");
    load.end().await;
}
