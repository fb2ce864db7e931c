//! Backends that are sick, and what Envoys find by checks of their own.

use std::net::SocketAddr;

use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use reqwest::StatusCode;

use crate::support::{Chat, Envoy, Load, Site, backend, model_server, until};

fn list(servers: &[SimulatedServer]) -> String {
    servers.iter().map(|server| format!("\"{}\"", server.address())).collect::<Vec<_>>().join(", ")
}

/// Whether a backend fails the checks of Envoy in a cluster; none when it is not there.
async fn fails_checks(envoy: &Envoy, cluster: &str, backend: SocketAddr) -> Option<bool> {
    let page = envoy.admin("/clusters?format=json").await;
    let clusters = page["cluster_statuses"].as_array()?;
    let hosts = clusters.iter().find(|found| found["name"] == cluster)?["host_statuses"].as_array()?;
    let is_it = |port: &serde_json::Value| port.as_u64() == Some(u64::from(backend.port()));
    let host = hosts.iter().find(|host| is_it(&host["address"]["socket_address"]["port_value"]))?;
    Some(host["health_status"]["failed_active_health_check"].as_bool().unwrap_or(false))
}

async fn requests(envoy: &Envoy, backend: SocketAddr) -> u64 {
    envoy.hosts("chat").await[&backend].requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_backend_loses_its_share_before_any_request_fails_and_gets_it_back() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let sick = servers[1].address();
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{}] }}\n",
        list(&servers)
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 6.0);
    clairvoy.state_where("predictions steer", |state| state.models[0].predictive_ratio == 1.0).await;
    load.more(30).await;
    let verdict = |state: &clairvoy::view::State| backend(state, sick).unwrap().verdict.clone();
    assert_eq!(verdict(&clairvoy.state().await.unwrap()), "usual");

    // What it was sent waits there; clients do so for a minute.
    servers[1].set_faults(Faults { hang: true, ..Faults::default() }).unwrap();
    clairvoy.event(&format!("{sick} in pool a is taken for sick (silent)")).await;
    let state = clairvoy
        .state_where("it keeps a probing share in a group of its own", |state| {
            let backend = backend(state, sick).unwrap();
            backend.share < 0.05 && backend.group != "a"
        })
        .await;
    assert_eq!(verdict(&state), "sick");
    let reason = &backend(&state, sick).unwrap().reason;
    assert!(reason.contains("is sick (silent)"), "{reason}");
    let before = requests(&envoy, sick).await;
    load.more(30).await;
    let probes = requests(&envoy, sick).await - before;
    assert!(probes <= 5, "{probes} of more than 30 requests");
    let file = site.config_file();
    let explained = tokio::task::block_in_place(|| {
        site.run(&["explain", &sick.to_string(), "--config", file.to_str().unwrap()])
    });
    let said = String::from_utf8(explained.stdout).unwrap();
    assert!(said.contains("is sick (silent)"), "{said}");
    // None has failed by now: what waits is answered.
    servers[1].set_faults(Faults::default()).unwrap();
    load.more(30).await;

    until("it is taken for well again", 120, async || {
        let state = clairvoy.state().await?;
        let well = state.events.iter().any(|event| event.message.contains("taken for well again"));
        if well { Ok(()) } else { Err(format!("{:#?}", backend(&state, sick))) }
    })
    .await;
    until("it is back in its group, with its share", 120, async || {
        let state = clairvoy.state().await?;
        let found = backend(&state, sick).unwrap();
        if found.group == "a" && found.share > 0.2 { Ok(()) } else { Err(format!("{found:#?}")) }
    })
    .await;
    let before = requests(&envoy, sick).await;
    load.more(60).await;
    assert!(requests(&envoy, sick).await - before >= 8);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_leaves_out_a_backend_that_fails_its_checks_and_no_request_fails() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let newcomer = model_server("chat", SpeedClass::Fast);
    let [hung, _, leaving] = servers.each_ref().map(SimulatedServer::address);
    let site = Site::new();
    site.configure(&format!(
        "balance: {{ drain_time: 2s }}\n\
         models:\n  - {{ name: chat, pools: [a], health: {{ interval: 500ms, unhealthy_threshold: 2 }} }}\n\
         pools:\n  - {{ name: a, engine: vllm, backends: [{}] }}\n",
        list(&servers)
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 20), 10.0);
    clairvoy.state_where("predictions steer", |state| state.models[0].predictive_ratio == 1.0).await;
    load.more(20).await;

    servers[0].set_faults(Faults { health_hang: true, ..Faults::default() }).unwrap();
    until("Envoy has noticed", 30, async || match fails_checks(&envoy, "chat", hung).await {
        Some(true) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(fails_checks(&envoy, "!static/chat", hung).await, Some(false), "the twin makes no checks");
    let before = envoy.hosts_of("chat").await[&hung].requests;
    load.more(40).await;
    assert_eq!(envoy.hosts_of("chat").await[&hung].requests, before, "it is left out");
    let state = clairvoy.state().await.unwrap();
    assert_eq!((state.models[0].predictive_ratio, &*backend(&state, hung).unwrap().verdict), (1.0, "usual"));

    servers[0].set_faults(Faults::default()).unwrap();
    until("it gets requests again", 30, async || {
        let now = envoy.hosts_of("chat").await[&hung].requests;
        if now > before + 5 { Ok(()) } else { Err(format!("{now} after {before}")) }
    })
    .await;

    // Who comes and goes is still Clairvoy's to say, whatever the checks find.
    assert_eq!(clairvoy.register("a", newcomer.address()).await, StatusCode::CREATED);
    envoy
        .host_where("the newcomer serves", "chat", newcomer.address(), |host| {
            host.is_some_and(|host| host.requests > 2)
        })
        .await;
    assert_eq!(clairvoy.remove("a", leaving).await, StatusCode::ACCEPTED);
    envoy.host_where("it has left, and answers checks", "chat", leaving, |host| host.is_none()).await;
    load.more(20).await;
    load.end().await;
    assert_eq!(clairvoy.in_sync().await.nacks, 0);
}
