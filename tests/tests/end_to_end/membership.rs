//! Backends and models come, go and change while clients stream. No stream may break.

use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use reqwest::StatusCode;

use crate::support::{Chat, Envoy, Host, Load, Site, backend, client, error_of, model_server, until};

/// A site with one model and a list of backends; `more` goes to the end of the file.
fn configured(backends: &[&SimulatedServer], more: &str) -> Site {
    let site = Site::new();
    rewrite(&site, backends, more);
    site
}

fn rewrite(site: &Site, backends: &[&SimulatedServer], more: &str) {
    let list: Vec<String> = backends.iter().map(|server| format!("\"{}\"", server.address())).collect();
    site.configure(&format!(
        "balance: {{ drain_time: 2s }}\n\
         pools:\n  - {{ name: a, backends: [{}] }}\n{more}",
        list.join(", "),
    ));
}

const CHAT: &str = "models:\n  - { name: chat, pools: [a] }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_come_and_go_by_the_api_without_a_broken_stream() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let [first, second, third] = [0, 1, 2].map(|index: usize| servers[index].address());
    let site = configured(&[&servers[0], &servers[1]], CHAT);
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 5.0);
    load.more(5).await;

    assert_eq!(clairvoy.register("a", third).await, StatusCode::CREATED);
    envoy.host_where("the newcomer serves", "chat", third, |host| host.is_some_and(|h| h.requests > 2)).await;

    assert_eq!(clairvoy.drain("a", first).await, StatusCode::ACCEPTED);
    let draining = |host: Option<&_>| host.is_some_and(|h: &Host| h.health == "DRAINING" && h.active == 0);
    envoy.host_where("it has drained", "chat", first, draining).await;
    let before = envoy.hosts("chat").await[&first].requests;
    load.more(10).await;
    assert_eq!(envoy.hosts("chat").await[&first].requests, before, "a draining backend gets nothing new");

    for gone in [first, third] {
        assert_eq!(clairvoy.remove("a", gone).await, StatusCode::ACCEPTED);
        envoy.host_where("it has left", "chat", gone, |host| host.is_none()).await;
    }
    load.more(10).await;
    assert_eq!(envoy.hosts("chat").await.into_keys().collect::<Vec<_>>(), [second]);

    assert_eq!(clairvoy.register("a", first).await, StatusCode::CREATED);
    envoy.host_where("it is back", "chat", first, |host| host.is_some_and(|h| h.requests > 2)).await;
    load.end().await;

    let state = clairvoy.state().await.unwrap();
    assert_eq!(state.backends.len(), 2);
    assert_eq!((state.proxies[0].nacks, clairvoy.register("b", first).await), (0, StatusCode::NOT_FOUND));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_leaves_a_backend_that_became_slow_and_returns_when_it_is_well() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let slow = servers[0].address();
    let site = configured(&[&servers[0], &servers[1]], CHAT);
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 6.0);
    // Its usual speed has to be known before it can be slower than usual.
    load.more(150).await;
    let share = |state: &clairvoy::view::State| backend(state, slow).unwrap().share;
    clairvoy.state_where("both serve alike", |state| (0.35..0.65).contains(&share(state))).await;

    servers[0].set_faults(Faults { slow_factor: 4.0, ..Faults::default() }).unwrap();
    clairvoy.state_where("the share of the slow one falls", |state| share(state) < 0.3).await;
    let part = part_of(&envoy, &load, slow).await;
    assert!(part < 0.4, "the slow one still gets {part:.2} of the requests");

    servers[0].set_faults(Faults::default()).unwrap();
    clairvoy.state_where("the share comes back", |state| share(state) > 0.42).await;
    load.end().await;
    let state = clairvoy.state().await.unwrap();
    assert!(state.totals.weight_changes >= 2, "{:?}", state.totals);
    let spoken = state.decisions.iter().filter(|decision| decision.kind == "weights");
    assert!(spoken.clone().all(|decision| decision.summary.contains('%')), "{:#?}", state.decisions);
}

/// The part of the next 30 requests that Envoy sends to a backend.
async fn part_of(envoy: &Envoy, load: &Load, backend: std::net::SocketAddr) -> f64 {
    let counts = async || {
        let hosts = envoy.hosts("chat").await;
        (hosts[&backend].requests, hosts.values().map(|host| host.requests).sum::<u64>())
    };
    let (own_before, all_before) = counts().await;
    load.more(30).await;
    let (own, all) = counts().await;
    own.saturating_sub(own_before) as f64 / (all - all_before) as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn editing_the_file_adds_and_removes_models_and_backends_without_a_broken_stream() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let code = model_server("code", SpeedClass::Fast);
    let site = configured(&[&servers[0]], CHAT);
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 5.0);
    load.more(5).await;

    let two_models = format!(
        "  - {{ name: b, backends: [\"{}\"] }}\nmodels:\n  - {{ name: code, pools: [b] }}\n  - {{ name: chat, pools: [a] }}\n",
        code.address()
    );
    rewrite(&site, &[&servers[0], &servers[1]], &two_models);
    let new = Chat::new(site.gateway, "code", 5);
    until("the new model answers", 30, async || new.stream().await.map(drop)).await;
    let joined = |host: Option<&Host>| host.is_some_and(|h| h.requests > 2);
    envoy.host_where("the new backend serves", "chat", servers[1].address(), joined).await;

    rewrite(&site, &[&servers[1]], CHAT);
    envoy.host_where("the old backend has left", "chat", servers[0].address(), |host| host.is_none()).await;
    until("the model is gone", 30, async || match new.request().send().await.unwrap().status().as_u16() {
        404 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(error_of(new.request().send().await.unwrap()).await.2, "model_not_found");
    load.more(5).await;
    load.end().await;

    // The listener depends on no model, so clients' connections were never touched.
    for (stat, expected) in [("listener_added", 1), ("listener_modified", 0), ("listener_removed", 0)] {
        assert_eq!(envoy.stat(&format!("listener_manager.{stat}")).await, expected, "{stat}");
    }
    assert_eq!(clairvoy.in_sync().await.nacks, 0);
    let list = client().get(format!("http://{}/v1/models", site.gateway)).send().await.unwrap();
    assert!(!list.text().await.unwrap().contains("code"));
}
