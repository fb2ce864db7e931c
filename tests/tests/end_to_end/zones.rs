//! Envoys of two zones: each prefers what is near, together they do what was decided for all, and what is spare stays so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clairvoy::view::State;
use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{
    Chat, Envoy, Load, Site, free_address, holds_for, model_server, model_server_at, until,
};

/// Requests to each Envoy over which shares are counted.
const COUNTED: u64 = 250;

/// Two Envoys in two zones, each with a listener of its own.
struct Zones {
    near_a: Envoy,
    near_b: Envoy,
    gateways: [SocketAddr; 2],
}

/// Adds a gateway for the second Envoy to what a site has.
fn configure(site: &Site, second: SocketAddr, rest: &str) {
    site.configure(&format!("  - {{ name: west, node_cluster: west, listen: {second} }}\n{rest}"));
}

async fn envoys(site: &mut Site, second: SocketAddr) -> Zones {
    let first = site.gateway;
    let near_a = Envoy::launch(site, &["--region", "eu", "--zone", "a"]).await;
    near_a.wait_until_routing().await;
    (site.gateway, site.admin) = (second, free_address());
    let place = ["--region", "eu", "--zone", "b", "--node-cluster", "west", "--node-id", "envoy-b"];
    let near_b = Envoy::launch(site, &place).await;
    near_b.wait_until_routing().await;
    Zones { near_a, near_b, gateways: [first, second] }
}

/// The share of a pool that a zone is told.
fn told(state: &State, zone: &str, pool: &str) -> f64 {
    let view = state.models[0].zones.iter().find(|view| view.zone == zone);
    let shares = view.into_iter().flat_map(|view| &view.shares);
    // A backend that is held back has a group of its own.
    shares.filter(|share| share.group.starts_with(pool)).map(|share| share.share).sum()
}

/// Requests that Envoy sent to each server by predictions.
async fn sent(envoy: &Envoy, servers: &[SimulatedServer]) -> Vec<u64> {
    let hosts = envoy.hosts_of("chat").await;
    servers.iter().map(|server| hosts.get(&server.address()).map_or(0, |host| host.requests)).collect()
}

/// The weight of a group, as Envoy has it.
async fn weight(envoy: &Envoy, group: &str) -> Option<u64> {
    let dump = envoy.admin("/config_dump?include_eds&resource=dynamic_endpoint_configs").await;
    let configs = dump["configs"].as_array().cloned().unwrap_or_default();
    let assignment = configs.iter().find(|config| config["endpoint_config"]["cluster_name"] == "chat")?;
    let groups = assignment["endpoint_config"]["endpoints"].as_array()?;
    groups.iter().find(|found| found["locality"]["sub_zone"] == group)?["load_balancing_weight"].as_u64()
}

/// Clients that keep asking, whatever becomes of it.
struct Clients {
    complete: Arc<AtomicU64>,
    broken: Arc<AtomicU64>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Clients {
    fn start(gateway: SocketAddr, rps: f64) -> Self {
        let (complete, broken) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (counts, stopped, spawner) = ((complete.clone(), broken.clone()), stop.clone(), tasks.clone());
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rps));
            while stopped.run_until_cancelled(ticks.tick()).await.is_some() {
                let (complete, broken) = counts.clone();
                spawner.spawn(async move {
                    let count =
                        if Chat::new(gateway, "chat", 5).stream().await.is_ok() { complete } else { broken };
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        Self { complete, broken, stop, tasks }
    }

    fn counts(&self) -> (u64, u64) {
        (self.complete.load(Ordering::Relaxed), self.broken.load(Ordering::Relaxed))
    }

    /// Waits until so many more have an answer.
    async fn more(&self, requests: u64) {
        let goal = self.counts().0 + requests;
        until("more answers", 60, async || {
            let counts = self.counts();
            if counts.0 >= goal { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
    }

    /// Lets them end, and returns how many had an answer and how many had none.
    async fn end(self) -> (u64, u64) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.counts()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_zone_prefers_its_own_and_together_they_do_what_the_law_decided() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let [one, two, other] = servers.each_ref().map(SimulatedServer::address);
    let mut site = Site::new();
    site.gateway_keys = "node_cluster: edge";
    let second = free_address();
    configure(
        &site,
        second,
        &format!(
            "zones: {{ rtt: [{{ from: eu/a, to: eu/b, ms: 2 }}] }}\n\
             models:\n  - {{ name: chat, pools: [a, b], balance: {{ zone_preference: 1 }} }}\n\
             pools:\n  - {{ name: a, capacity_rps: 8, locality: {{ region: eu, zone: a }}, backends: [\"{one}\", \"{two}\"] }}\n  \
             - {{ name: b, capacity_rps: 8, locality: {{ region: eu, zone: b }}, backends: [\"{other}\"] }}\n"
        ),
    );
    let clairvoy = site.serve().await;
    let Zones { near_a, near_b, gateways } = envoys(&mut site, second).await;
    let loads = gateways.map(|gateway| Load::start(Chat::new(gateway, "chat", 10), 8.0));
    let steers = |state: &State| {
        state.models[0].predictive_ratio == 1.0
            && told(state, "eu/a", "a") > 0.9
            && told(state, "eu/b", "b") > 0.5
    };
    clairvoy.state_where("each zone has shares of its own", steers).await;
    for load in &loads {
        load.more(40).await;
    }

    let before = [sent(&near_a, &servers).await, sent(&near_b, &servers).await];
    let goals = loads.each_ref().map(|load| load.complete() + COUNTED);
    // The share of a: by the law, and as each zone was told, all the time.
    let (mut decided, mut told_to) = (Vec::new(), [Vec::new(), Vec::new()]);
    until("enough requests", 120, async || {
        let state = clairvoy.state().await?;
        let shares = state.models[0].shares.iter().filter(|share| share.group.starts_with('a'));
        decided.push(shares.map(|share| share.share).sum::<f64>());
        for (told_to, zone) in told_to.iter_mut().zip(["eu/a", "eu/b"]) {
            told_to.push(told(&state, zone, "a"));
        }
        let complete = loads.each_ref().map(Load::complete);
        if complete.iter().zip(goals).all(|(has, goal)| *has >= goal) {
            Ok(())
        } else {
            Err(format!("{complete:?}"))
        }
    })
    .await;
    let after = [sent(&near_a, &servers).await, sent(&near_b, &servers).await];
    let shares: Vec<(f64, f64)> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| {
            let got: Vec<f64> =
                before.iter().zip(after).map(|(before, after)| (after - before) as f64).collect();
            (got[0] + got[1], got.iter().sum())
        })
        .collect();
    let mean = |shares: &Vec<f64>| shares.iter().sum::<f64>() / shares.len() as f64;
    let (of_law, told_to) = (mean(&decided), told_to.each_ref().map(mean));
    let of_zone = |(to_a, all): (f64, f64)| to_a / all;
    let of_all = (shares[0].0 + shares[1].0) / (shares[0].1 + shares[1].1);
    let of_each: Vec<f64> = shares.iter().map(|zone| of_zone(*zone)).collect();
    println!(
        "a has {of_law:.3} of all by the law, {of_all:.3} in fact; of each zone {of_each:.3?}, told {told_to:.3?}"
    );
    assert!((of_all - of_law).abs() < 0.03, "{of_all} of the requests, {of_law} by the law: {shares:?}");
    assert!(of_each[0] > 0.95, "{shares:?}");
    assert!(of_each[1] < of_law - 0.2, "{shares:?}");
    for (has, told) in of_each.iter().zip(told_to) {
        assert!((has - told).abs() < 0.02, "{of_each:.3?} by Envoys' counters, told {told_to:.3?}");
    }
    for load in loads {
        load.end().await;
    }

    // What Envoy was told is made again from the record.
    until("the weight of a zone is explained", 120, async || {
        let text = other.to_string();
        let config = site.config_file();
        let config = config.to_str().unwrap();
        let arguments = ["explain", &text, "--zone", "eu/b", "--json", "--config", config];
        let answer = tokio::task::block_in_place(|| site.run(&arguments));
        // A database that is slow to take decisions, or to answer, is asked again.
        if !answer.status.success() {
            return Err(format!("{answer:?}"));
        }
        let told: Value = serde_json::from_slice(&answer.stdout).map_err(|error| error.to_string())?;
        let has = weight(&near_b, "b").await;
        let terms = &told["zone"]["terms"];
        let saves = terms["rtt_ms"].as_f64() < terms["fleet_rtt_ms"].as_f64();
        if told["zone"]["group_weight"].as_u64() == has && has.is_some() && saves {
            Ok(())
        } else {
            Err(format!("{told} {has:?}"))
        }
    })
    .await;

    // Clairvoy is killed and comes back: each zone keeps what it was told.
    clairvoy.kill();
    let clairvoy = site.serve().await;
    holds_for("the zone keeps its view", 6.0, async || {
        let has = weight(&near_b, "b").await;
        if has.is_some_and(|weight| weight > 5000) {
            Ok(())
        } else {
            Err(format!("{has:?}, a third by the fleet"))
        }
    })
    .await;
    let steers = |state: &State| state.models[0].predictive_ratio == 1.0 && told(state, "eu/b", "b") > 0.5;
    clairvoy.state_where("predictions steer again", steers).await;

    // The zone b dies.
    let clients = gateways.map(|gateway| Clients::start(gateway, 6.0));
    for clients in &clients {
        clients.more(12).await;
    }
    let running = servers[2].state().engine.running as u64;
    servers[2].kill();
    let moved = |state: &State| {
        state.backends.iter().any(|backend| backend.address == other.to_string() && backend.share == 0.0)
    };
    clairvoy.state_where("its backend has no share", moved).await;
    until("both Envoys know it", 30, async || {
        let weights = [weight(&near_a, "b").await, weight(&near_b, "b").await];
        if weights == [Some(1), Some(1)] { Ok(()) } else { Err(format!("{weights:?}")) }
    })
    .await;
    let broken = clients.each_ref().map(Clients::counts).map(|counts| counts.1);
    for clients in &clients {
        clients.more(30).await;
    }
    let ended = clients.each_ref().map(Clients::counts).map(|counts| counts.1);
    assert_eq!(ended, broken, "none fails any more");
    assert!(broken.iter().sum::<u64>() <= running + 2, "{broken:?}, and {running} ran there");
    for clients in clients {
        clients.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spare_backend_takes_requests_only_when_no_other_can() {
    let servers = [(); 4].map(|()| model_server("chat", SpeedClass::Fast));
    let [one, two, three, spare] = servers.each_ref().map(SimulatedServer::address);
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a, far] }}\n\
         pools:\n  - {{ name: a, capacity_rps: 8, backends: [\"{one}\", \"{two}\", \"{three}\"] }}\n  \
         - {{ name: far, spare: true, locality: {{ region: us, zone: z }}, backends: [\"{spare}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let full = |state: &State| state.models[0].predictive_ratio == 1.0;
    let clients = Clients::start(site.gateway, 20.0);
    clairvoy.state_where("predictions steer", full).await;
    let of =
        async |server: SocketAddr| envoy.hosts("chat").await.get(&server).map_or(0, |host| host.requests);
    assert_eq!(of(spare).await, 0);

    // One of three fails until it is ejected: its part goes to the two others.
    servers[0].set_faults(Faults { error_rate: 1.0, ..Faults::default() }).unwrap();
    until("it is ejected", 30, async || {
        match envoy.stat("cluster.chat.outlier_detection.ejections_active").await {
            0 => Err(format!("{:?}", clients.counts())),
            _ => Ok(()),
        }
    })
    .await;
    clients.more(60).await;
    assert_eq!(of(spare).await, 0, "an ejected host is no reason");
    let (config, address) = (site.config_file(), spare.to_string());
    let arguments = ["explain", &address, "--config", config.to_str().unwrap()];
    let said = String::from_utf8(tokio::task::block_in_place(|| site.run(&arguments)).stdout).unwrap();
    assert!(said.contains("a spare of pool far, which has no share of its own"), "{said}");
    assert!(said.contains("take no requests while another backend can"), "{said}");
    servers[0].set_faults(Faults::default()).unwrap();

    let running: BTreeMap<SocketAddr, u64> =
        servers[..3].iter().map(|server| (server.address(), server.state().engine.running as u64)).collect();
    servers[..3].iter().for_each(SimulatedServer::kill);
    until("the spare one takes all", 60, async || {
        let before = (clients.counts(), of(spare).await);
        clients.more(10).await;
        let after = (clients.counts(), of(spare).await);
        // Of what it has answered a few may have been sent there before.
        if after.0.1 == before.0.1 && after.1 >= before.1 + 8 {
            Ok(())
        } else {
            Err(format!("{before:?} {after:?} {running:?}"))
        }
    })
    .await;
    let before = clients.counts();
    clients.more(40).await;
    assert_eq!(clients.counts().1, before.1);

    // One is back, which serves less than half of what comes: both take requests.
    let _back = model_server_at(one, "chat", SpeedClass::Fast);
    let taken = async || [of(one).await, of(spare).await];
    let shared = async || {
        let before = taken().await;
        clients.more(60).await;
        let after = taken().await;
        [after[0].saturating_sub(before[0]), after[1].saturating_sub(before[1])]
    };
    until("one that is back has a part", 60, async || {
        let [back, spare] = shared().await;
        if back >= 10 && spare >= 20 { Ok(()) } else { Err(format!("{back} and {spare}")) }
    })
    .await;
    // For as long as a step by a tenth a second would take to give it everything.
    for _ in 0..5 {
        let [back, spare] = shared().await;
        assert!(spare >= 20, "{back} of 60 to the one that is back, {spare} to the spare one");
    }
    // All are back.
    let _others = [two, three].map(|address| model_server_at(address, "chat", SpeedClass::Fast));
    until("the spare one takes none", 60, async || {
        let [back, spare] = shared().await;
        if spare == 0 { Ok(()) } else { Err(format!("{back} and {spare}")) }
    })
    .await;
    clients.end().await;
}
