//! The policies that a model can be balanced by: Envoy's own counters say what each does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::{get, post};
use clairvoy::envoy::static_cluster;
use clairvoy::view::State;
use clairvoy_tests::{SimulatedServer, SpeedClass};
use futures::StreamExt as _;
use futures::future::join_all;
use reqwest::Method;
use tokio::net::TcpListener;

use crate::support::{Chat, Clairvoy, Envoy, Load, Site, backend, free_address, model_server, until};

/// What one server of each costs, so that a request at the second is the cheapest.
const PRICES: [f64; 3] = [6.0, 0.6, 1.0];
/// A model whose servers tell nothing that counts.
const SILENT: &str = "orca_without_reports";
/// A model that goes by capacity alone, through the cluster to which the others would fall back.
const STATIC: &str = "static";
/// Capacities that the pools of a model are configured with, requests/s.
const CAPACITIES: [f64; 3] = [60.0, 30.0, 10.0];
/// Shares are counted over this time at least.
const WINDOW: Duration = Duration::from_secs(10);

/// A model server that answers after a time, and says how busy it is.
async fn answering_server(takes: Duration, utilisation: f64) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let load = format!("TEXT rps_fractional=100, application_utilization={utilisation}");
    let chat = move || {
        let load = load.clone();
        async move {
            tokio::time::sleep(takes).await;
            ([("endpoint-load-metrics", load)], axum::Json(serde_json::json!({ "choices": [] })))
        }
    };
    let page = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n\
                # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 0\n";
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/metrics", get(move || async move { page }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// A Clairvoy and an Envoy with a model for each policy, of three pools with one server each.
struct Fleet {
    servers: BTreeMap<&'static str, Vec<SocketAddr>>,
    envoy: Envoy,
    clairvoy: Clairvoy,
    site: Site,
}

impl Fleet {
    async fn new(models: &[(&'static str, &str)], takes: [u64; 3]) -> Self {
        let (mut servers, mut names, mut pools) = (BTreeMap::new(), String::new(), String::new());
        for (model, balance) in models {
            names += &format!(
                "  - {{ name: {model}, pools: [{model}-0, {model}-1, {model}-2], balance: {{ {balance} }} }}\n"
            );
            let mut addresses = Vec::new();
            for (index, (capacity, takes)) in CAPACITIES.iter().zip(takes).enumerate() {
                // A report without utilisation is passed over.
                let utilisation = if *model == SILENT { 0.0 } else { [0.2, 0.4, 0.8][index] };
                let address = answering_server(Duration::from_millis(takes), utilisation).await;
                pools += &format!(
                    "  - {{ name: {model}-{index}, engine: vllm, capacity_rps: {capacity}, price_per_hour: {}, backends: [\"{address}\"] }}\n",
                    PRICES[index]
                );
                addresses.push(address);
            }
            servers.insert(*model, addresses);
        }
        let site = Site::new();
        site.configure(&format!("models:\n{names}pools:\n{pools}"));
        let clairvoy = site.serve().await;
        let envoy = site.envoy().await;
        let all_serve = |state: &State| state.backends.iter().all(|backend| backend.share > 0.0);
        clairvoy.state_where("all servers take requests", all_serve).await;
        clairvoy.in_sync().await;
        Self { servers, envoy, clairvoy, site }
    }

    /// Sends requests as fast as they are answered, so many at once, and returns which part of them each server got through the
    /// cluster of the model's policy, by Envoy's counters.
    async fn shares(
        &self,
        model: &str,
        requests: u32,
        at_once: usize,
        user: impl Fn(u32) -> u32,
    ) -> Vec<f64> {
        self.shares_over(Duration::ZERO, model, requests, at_once, user).await
    }

    /// The same at an even pace, for so long at least.
    async fn shares_over(
        &self,
        window: Duration,
        model: &str,
        requests: u32,
        at_once: usize,
        user: impl Fn(u32) -> u32,
    ) -> Vec<f64> {
        let cluster = if model == STATIC { static_cluster(model) } else { model.to_owned() };
        let before = self.envoy.hosts_of(&cluster).await;
        let chat = Chat::new(self.site.gateway, model, 1);
        let (began, pace) = (tokio::time::Instant::now(), window / requests);
        futures::stream::iter(0..requests)
            .map(|number| {
                let request = chat.request().header("x-user", user(number).to_string());
                async move {
                    tokio::time::sleep_until(began + pace * (number + 1)).await;
                    assert!(request.send().await.unwrap().status().is_success());
                }
            })
            .buffer_unordered(at_once)
            .collect::<Vec<()>>()
            .await;
        let after = self.envoy.hosts_of(&cluster).await;
        let got = |address: &SocketAddr| (after[address].requests - before[address].requests) as f64;
        self.servers[model].iter().map(|address| got(address) / f64::from(requests)).collect()
    }
}

fn close(shares: &[f64], expected: &[f64], within: f64) -> Result<(), String> {
    let far = shares.iter().zip(expected).any(|(share, expected)| (share - expected).abs() > within);
    if far { Err(format!("{shares:.3?} instead of {expected:.3?}")) } else { Ok(()) }
}

fn assert_close(model: &str, shares: &[f64], expected: &[f64]) {
    close(shares, expected, 0.02).unwrap_or_else(|found| panic!("{model}: {found}"));
}

const EQUAL: [f64; 3] = [1.0 / 3.0; 3];
const BY_CAPACITY: [f64; 3] = [0.6, 0.3, 0.1];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_policy_gives_each_backend_its_share() {
    let models = [
        (STATIC, "policy: static"),
        ("round_robin", "policy: round_robin"),
        ("weighted_round_robin", "policy: weighted_round_robin"),
        ("least_request", "policy: least_request"),
        ("weighted_least_request", "policy: weighted_least_request"),
        ("random", "policy: random"),
        ("ring_hash", "policy: ring_hash, hash_on: [{ header: x-user }]"),
        ("maglev", "policy: maglev, hash_on: [{ header: x-user }]"),
        ("orca", "policy: orca"),
        (SILENT, "policy: orca"),
    ];
    let fleet = Fleet::new(&models, [0, 0, 0]).await;
    let one = |_: u32| 0;
    let many = |number: u32| number;
    let scheduled = [
        (STATIC, BY_CAPACITY),
        ("round_robin", EQUAL),
        ("weighted_round_robin", BY_CAPACITY),
        // One request at a time: what is active elsewhere decides nothing.
        ("weighted_least_request", BY_CAPACITY),
        // While no report counts all get the same.
        (SILENT, EQUAL),
    ];
    join_all(scheduled.map(|(model, expected)| {
        let counted = fleet.shares_over(WINDOW, model, 600, 1, one);
        async move { (model, counted.await, expected) }
    }))
    .await
    .into_iter()
    .for_each(|(model, shares, expected)| assert_close(model, &shares, &expected));
    // What is drawn by lot, or by a hash, comes near with many requests: 9,000 of them are four standard deviations within 2 %,
    // so that all twelve shares are within nearly always. The points of a ring are uneven by themselves, by some 0.4 %.
    let drawn = [
        ("random", EQUAL, 9_000),
        ("least_request", EQUAL, 9_000),
        ("maglev", BY_CAPACITY, 16_000),
        ("ring_hash", BY_CAPACITY, 16_000),
    ];
    join_all(drawn.map(|(model, expected, requests)| {
        let counted = fleet.shares_over(WINDOW, model, requests, 8, many);
        async move { (model, counted.await, expected) }
    }))
    .await
    .into_iter()
    .for_each(|(model, shares, expected)| assert_close(model, &shares, &expected));
    // Requests that are alike stay with one backend.
    for model in ["ring_hash", "maglev"] {
        let shares = fleet.shares(model, 50, 4, one).await;
        assert!(shares.contains(&1.0), "{model}: {shares:?}");
    }
    // By what reports say: the same requests/s at a half and a quarter of the utilisation.
    let reported = [4.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0];
    until("reports decide", 60, async || close(&fleet.shares("orca", 70, 1, one).await, &reported, 0.05))
        .await;
    assert_close("orca", &fleet.shares_over(WINDOW, "orca", 600, 1, one).await, &reported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_take_longer_get_fewer_requests() {
    let fleet = Fleet::new(&[("least", "policy: least_response_time")], [40, 80, 160]).await;
    until("Envoy does as was published", 120, async || {
        let shares = as_published(&fleet, "least", 400, 4).await?;
        if shares[0] > 1.4 * shares[1] && shares[1] > 1.4 * shares[2] {
            Ok(())
        } else {
            Err(format!("{shares:?} go not by the time that answers take"))
        }
    })
    .await;
    let answer = fleet.clairvoy.request(Method::GET, "/api/v1/state").send().await.unwrap();
    assert!(answer.text().await.unwrap().contains("s of late"), "the reason is told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_gives_the_shares_of_predictions_and_not_those_of_capacity() {
    // Under a light load the fast one answers sooner, however much the slow one could serve.
    let servers = [SpeedClass::Fast, SpeedClass::Slow].map(|class| model_server("chat", class));
    let [fast, slow] = servers.each_ref().map(SimulatedServer::address);
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [fast, slow] }}\n\
         pools:\n  - {{ name: fast, backends: [\"{fast}\"] }}\n  - {{ name: slow, backends: [\"{slow}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 20), 20.0);
    until("Envoy does as predictions say", 90, async || {
        let (told, by_capacity) = told_and_by_capacity(&clairvoy, "slow", slow).await?;
        let percent = envoy.predictive_percent("chat").await;
        if percent != 100 || (told - by_capacity).abs() < 0.1 {
            return Err(format!("{percent} % by shares of {told:.3}, by capacity {by_capacity:.3}"));
        }
        let (before, sent) = (envoy.hosts_of("chat").await, envoy.sent("chat").await);
        // For ten seconds.
        load.more(200).await;
        let (after, sent_since) = (envoy.hosts_of("chat").await, envoy.sent("chat").await);
        if sent_since.by_capacity != sent.by_capacity {
            return Err("not all requests went by predictions".to_owned());
        }
        let (later, _) = told_and_by_capacity(&clairvoy, "slow", slow).await?;
        // Not while they move.
        close(&[told], &[later], 0.005)?;
        let [fast, slow] =
            [fast, slow].map(|server| (after[&server].requests - before[&server].requests) as f64);
        close(&[slow / (fast + slow)], &[told], 0.02)
    })
    .await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_envoys_with_few_requests_go_by_weights_of_endpoints() {
    // One token each: an endpoint has hardly ever a request of an Envoy, so there is nothing to compare inside a group.
    let servers =
        [SpeedClass::Fast, SpeedClass::Slow].map(|class| [(); 2].map(|()| model_server("chat", class)));
    let addresses = servers.each_ref().map(|pool| pool.each_ref().map(SimulatedServer::address));
    let [[a, b], [c, d]] = addresses;
    let mut site = Site::new();
    let (first, second) = (site.gateway, free_address());
    site.configure(&format!(
        "  - {{ name: west, node_cluster: west, listen: {second} }}\n\
         models:\n  - {{ name: chat, pools: [fast, slow] }}\n\
         pools:\n  - {{ name: fast, backends: [\"{a}\", \"{b}\"] }}\n  - {{ name: slow, backends: [\"{c}\", \"{d}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let east = site.envoy().await;
    (site.gateway, site.admin) = (second, free_address());
    let west = Envoy::launch(&site, &["--node-cluster", "west", "--node-id", "west-1"]).await;
    west.wait_until_routing().await;
    let loads = [first, second].map(|gateway| Load::start(Chat::new(gateway, "chat", 1), 15.0));
    let all = addresses.concat();
    let counted = async || {
        let of_each = [east.hosts_of("chat").await, west.hosts_of("chat").await];
        let of_both = |address: &SocketAddr| of_each.iter().map(|hosts| hosts[address].requests).sum::<u64>();
        all.iter().map(of_both).collect::<Vec<_>>()
    };
    let told = async || {
        let state = clairvoy.state().await?;
        let share = |address: &SocketAddr| backend(&state, address).map(|backend| backend.share);
        all.iter().map(share).collect::<Option<Vec<_>>>().ok_or_else(|| "a server is missing".to_owned())
    };
    until("both Envoys do as endpoints' weights say", 150, async || {
        let hosts = east.hosts_of("chat").await;
        if hosts.values().all(|host| host.weight == 1) {
            return Err(format!("endpoints have no weights yet: {hosts:?}"));
        }
        let (before, shares) = (counted().await, told().await?);
        // For ten seconds.
        tokio::join!(loads[0].more(150), loads[1].more(150));
        let (after, later) = (counted().await, told().await?);
        // Not while they move.
        close(&shares, &later, 0.005)?;
        let sent: Vec<f64> =
            before.iter().zip(&after).map(|(before, after)| (after - before) as f64).collect();
        let of_all: f64 = sent.iter().sum();
        close(&sent.iter().map(|sent| sent / of_all).collect::<Vec<_>>(), &shares, 0.02)
    })
    .await;
    for load in loads {
        load.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cheaper_pool_goes_first_while_it_has_room() {
    let models = [("dear", "cost_weight: 0"), ("cheap", "cost_weight: 1")];
    // Each server takes so long that one request at a time is far from what the cheap one serves.
    let fleet = Fleet::new(&models, [100, 100, 100]).await;
    let one = |_: u32| 0;
    until("shares go by capacity", 60, async || {
        close(&fleet.shares("dear", 60, 1, one).await, &BY_CAPACITY, 0.05)
    })
    .await;
    until("the cheap one gets what it can take", 90, async || {
        let shares = as_published(&fleet, "cheap", 100, 1).await?;
        if shares[1] > 0.9 { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await;
    let explained = || {
        let (backend, config) = (fleet.servers["cheap"][0].to_string(), fleet.site.config_file());
        let arguments = ["explain", &backend, "--config", config.to_str().unwrap()];
        let said = tokio::task::block_in_place(|| fleet.site.run(&arguments));
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    assert!(explained().contains("as it is dear"), "{}", explained());
    // However many more come: of the 30 requests/s that it serves it takes 24, and the others the rest.
    until("the others are needed, too", 120, async || {
        let began = Instant::now();
        let shares = as_published(&fleet, "cheap", 800, 8).await?;
        let rps = 800.0 / began.elapsed().as_secs_f64();
        let its_rps = shares[1] * rps;
        let is_so = rps > 34.0 && (18.0..=29.0).contains(&its_rps);
        if is_so { Ok(()) } else { Err(format!("{its_rps:.1} of {rps:.1} requests/s: {}", explained())) }
    })
    .await;
}

/// Which part of so many requests each server got; an error where that is not what was published for it, or was not all the
/// time.
async fn as_published(fleet: &Fleet, model: &str, requests: u32, at_once: usize) -> Result<Vec<f64>, String> {
    let before = published(fleet, model).await?;
    let shares = fleet.shares_over(WINDOW, model, requests, at_once, |_| 0).await;
    let after = published(fleet, model).await?;
    close(&before, &after, 0.01)?;
    close(&shares, &after, 0.02)?;
    Ok(shares)
}

/// The share of each server of a model, as Envoys are told it.
async fn published(fleet: &Fleet, model: &str) -> Result<Vec<f64>, String> {
    let state = fleet.clairvoy.state().await?;
    let view = state.models.iter().find(|view| view.name == model).ok_or("the model is missing")?;
    let share = |index: usize| -> f64 {
        // A server that is held back has a group of its own.
        let pool = format!("{model}-{index}");
        view.shares.iter().filter(|share| share.group.starts_with(&pool)).map(|share| share.share).sum()
    };
    Ok((0..CAPACITIES.len()).map(share).collect())
}

/// The share of a pool with one server as Envoys are told it, and what it would be by capacity alone.
async fn told_and_by_capacity(
    clairvoy: &Clairvoy,
    pool: &str,
    server: SocketAddr,
) -> Result<(f64, f64), String> {
    let state = clairvoy.state().await?;
    // A server that is held back has a group of its own.
    let of_pool = state.models[0].shares.iter().filter(|share| share.group.starts_with(pool));
    let told = of_pool.map(|share| share.share).sum();
    let server = backend(&state, server).ok_or_else(|| format!("a server is missing: {state:#?}"))?;
    Ok((told, server.capacity_share))
}
