//! Why a backend had its share: decisions are made again from their records, down to the weights that Envoy had.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::StatusCode;
use serde_json::Value;

use crate::support::{Chat, Envoy, Load, Site, model_server, until};

/// Pairs of a backend and a time that are asked for.
const ASKED: usize = 200;
/// Weights have to stand for as long before and after the time: it takes a moment until Envoy has them.
const STOOD: TimeDelta = TimeDelta::milliseconds(400);
/// How long the run is watched.
const WATCHED: Duration = Duration::from_secs(25);

/// The weight of each group, and the group of each backend, as Envoy has them.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    weights: BTreeMap<String, u64>,
    groups: BTreeMap<SocketAddr, String>,
}

async fn look(envoy: &Envoy) -> Seen {
    let dump = envoy.admin("/config_dump?include_eds&resource=dynamic_endpoint_configs").await;
    let mut seen = Seen { weights: BTreeMap::new(), groups: BTreeMap::new() };
    for config in dump["configs"].as_array().into_iter().flatten() {
        let assignment = &config["endpoint_config"];
        if assignment["cluster_name"] != "chat" {
            continue;
        }
        for group in assignment["endpoints"].as_array().into_iter().flatten() {
            let name = group["locality"]["sub_zone"].as_str().unwrap().to_owned();
            seen.weights.insert(name.clone(), group["load_balancing_weight"].as_u64().unwrap_or(1));
            for endpoint in group["lb_endpoints"].as_array().into_iter().flatten() {
                let socket = &endpoint["endpoint"]["address"]["socket_address"];
                let text = format!("{}:{}", socket["address"].as_str().unwrap(), socket["port_value"]);
                seen.groups.insert(text.parse().unwrap(), name.clone());
            }
        }
    }
    seen
}

/// What the command says about a backend now.
fn explained(site: &Site, backend: &str) -> String {
    let config = site.config_file();
    let answer =
        tokio::task::block_in_place(|| site.run(&["explain", backend, "--config", config.to_str().unwrap()]));
    String::from_utf8(answer.stdout).unwrap()
}

/// Whether the one Envoy had acknowledged by this time what was decided last.
fn is_acknowledged(told: &Value, at: DateTime<Utc>) -> bool {
    let acknowledgement = &told["acknowledgement"];
    if acknowledgement.is_null() {
        return false;
    }
    assert_eq!(acknowledgement["refused"], 0, "{told}");
    let published: DateTime<Utc> = acknowledgement["published_at"].as_str().unwrap().parse().unwrap();
    let Some(seconds) = acknowledgement["last_seconds"].as_f64() else { return false };
    assert_eq!((&acknowledgement["accepted"], &acknowledgement["envoys"]), (&1.into(), &1.into()), "{told}");
    published + TimeDelta::microseconds((1e6 * seconds) as i64) <= at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_weight_that_envoy_had_is_explained() {
    let classes = [SpeedClass::Fast, SpeedClass::Fast, SpeedClass::Slow];
    let servers: Vec<SimulatedServer> = classes.map(|class| model_server("chat", class)).into();
    let list = |servers: &[SimulatedServer]| {
        let addresses: Vec<String> =
            servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
        addresses.join(", ")
    };
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [fast, slow] }}\npools:\n  - {{ name: fast, backends: [{}] }}\n  \
         - {{ name: slow, backends: [{}] }}\n",
        list(&servers[..2]),
        list(&servers[2..]),
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    clairvoy.in_sync().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 80), 8.0);
    load.more(20).await;

    let mut looks: Vec<(DateTime<Utc>, Seen)> = Vec::new();
    let began = tokio::time::Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    while began.elapsed() < WATCHED {
        ticks.tick().await;
        // Weights move when a server becomes slow, and when it is well again.
        let is_slow = (8..18).contains(&began.elapsed().as_secs());
        servers[0]
            .set_faults(Faults { slow_factor: if is_slow { 4.0 } else { 1.0 }, ..Faults::default() })
            .unwrap();
        let before = Utc::now();
        let seen = look(&envoy).await;
        looks.push((before, seen));
    }
    load.end().await;
    let different = looks.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
    assert!(different >= 3, "weights hardly moved: {different}");

    // Times at which Envoy had the same before and after.
    let stands = |(at, seen): &&(DateTime<Utc>, Seen)| {
        let near = looks.iter().filter(|(other, _)| (*other - *at).abs() <= STOOD);
        let is_inside = *at - looks[0].0 > STOOD && looks[looks.len() - 1].0 - *at > STOOD;
        is_inside && near.clone().count() >= 4 && near.clone().all(|(_, other)| other == seen)
    };
    let standing: Vec<&(DateTime<Utc>, Seen)> = looks.iter().filter(stands).collect();
    assert!(standing.len() > 20, "{}", standing.len());
    let mut random = StdRng::seed_from_u64(1);
    let mut asked = BTreeMap::<SocketAddr, Vec<&(DateTime<Utc>, Seen)>>::new();
    for _ in 0..ASKED {
        let server = &servers[random.random_range(0..servers.len())];
        asked.entry(server.address()).or_default().push(standing[random.random_range(0..standing.len())]);
    }
    let mut acknowledged = 0;
    for (backend, looks) in asked {
        let text = backend.to_string();
        let times: Vec<String> = looks.iter().map(|(at, _)| at.to_rfc3339()).collect();
        let config = site.config_file();
        let mut arguments = vec!["explain", &text, "--json", "--config", config.to_str().unwrap()];
        times.iter().for_each(|at| arguments.extend(["--at", at]));
        let answer = tokio::task::block_in_place(|| site.run(&arguments));
        assert!(answer.status.success(), "{answer:?}");
        let lines = String::from_utf8(answer.stdout).unwrap();
        let told: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(told.len(), looks.len());
        for (told, (at, seen)) in told.iter().zip(looks) {
            let group = &seen.groups[&backend];
            assert_eq!(told["group"], group.as_str(), "{at}: {told}");
            assert_eq!(told["group_weight"], seen.weights[group], "{at}: {told}");
            acknowledged += usize::from(is_acknowledged(told, *at));
        }
    }
    // What was decided within the last seconds may not be written down yet.
    assert!(acknowledged * 10 >= ASKED * 9, "{acknowledged} of {ASKED}");
    let text = servers[2].address().to_string();
    let said = until("the acknowledgement of the weights in force is written down", 20, async || {
        let said = explained(&site, &text);
        if said.contains("acknowledged by 1 of 1 Envoy") { Ok(said) } else { Err(said) }
    })
    .await;
    assert!(said.contains("group slow: weight") && said.contains("inflow that is wanted"), "{said}");
    assert!(said.contains(" after it was published\n"), "{said}");

    // Without an Envoy nobody acknowledges anything.
    drop(envoy);
    clairvoy.state_where("the Envoy has gone", |state| state.proxies.is_empty()).await;
    assert_eq!(clairvoy.drain("slow", &text).await, StatusCode::ACCEPTED);
    until("that nobody was told is written down", 20, async || {
        let said = explained(&site, &servers[0].address().to_string());
        if said.contains("acknowledged by none: no Envoy was connected") { Ok(()) } else { Err(said) }
    })
    .await;
}
