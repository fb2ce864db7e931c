//! A canary whose steered part does worse than the rest, and one of whole Envoys.

use std::time::{Duration, Instant};

use chrono::Utc;
use clairvoy::config::proxy_number;
use clairvoy::view::{CanaryView, ProxyState, State};
use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use reqwest::{Method, StatusCode};

use crate::support::{Chat, Clairvoy, Envoy, Load, Site, free_address, model_server, until};

/// From when requests go astray until predictions steer none.
const STEPS_BACK_WITHIN: Duration = Duration::from_secs(60);

fn canary(state: &State) -> &CanaryView {
    state.models[0].canary.as_ref().unwrap()
}

/// Runs a command of the program with the site's configuration: whether it went well, and what it said.
fn run(site: &Site, arguments: &[&str]) -> (bool, String) {
    let file = site.config_file();
    let mut all = arguments.to_vec();
    all.extend(["--config", file.to_str().unwrap()]);
    let done = tokio::task::block_in_place(|| site.run(&all));
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8(said).unwrap())
}

async fn is_looked_at(clairvoy: &Clairvoy) {
    until("outcomes of both parts are compared", 90, async || {
        let state = clairvoy.state().await?;
        let view = canary(&state);
        let told = view.terms.iter().filter(|terms| terms.window_seconds.is_some()).count();
        if view.blocks >= 3 && told == 3 { Ok(()) } else { Err(format!("{view:#?}")) }
    })
    .await;
}

/// Envoy makes checks only in the cluster that goes by predictions. A fast server whose health page hangs, while it serves as
/// ever, is then lost to the steered requests alone: they go to old and slow servers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_whose_steered_requests_wait_longer_steps_back_within_a_minute() {
    let fast = model_server("chat", SpeedClass::Fast);
    let slow = [(); 2].map(|()| model_server("chat", SpeedClass::Slow));
    for server in &slow {
        server.set_faults(Faults { slow_factor: 15.0, ..Faults::default() }).unwrap();
    }
    let [first, second] = slow.each_ref().map(SimulatedServer::address);
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - name: chat\n    pools: [a, b]\n    rung: canary\n    canary: {{ share: 0.5 }}\n    \
         slo: {{ ttft_p95: 300ms }}\n    shedding: {{ enabled: false }}\n    \
         health: {{ interval: 1s, timeout: 1s, unhealthy_threshold: 2 }}\n\
         pools:\n  - {{ name: a, engine: vllm, capacity_rps: 10, backends: [\"{}\"] }}\n  \
         - {{ name: b, engine: vllm, capacity_rps: 1, backends: [\"{first}\", \"{second}\"] }}\n",
        fast.address()
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 5), 10.0);
    let steers = |state: &State| (state.models[0].predictive_ratio - 0.5).abs() < 1e-9;
    clairvoy.state_where("the canary steers its share", steers).await;
    is_looked_at(&clairvoy).await;
    let state = clairvoy.state().await.unwrap();
    assert!(canary(&state).stepped_back.is_none(), "{:#?}", canary(&state));
    assert!(clairvoy.metrics().await.contains("clairvoy_model_canary_stepped_back{model=\"chat\"} 0"));

    fast.set_faults(Faults { health_hang: true, ..Faults::default() }).unwrap();
    let (began, began_at) = (Instant::now(), Utc::now());
    let state = until("it steps back", STEPS_BACK_WITHIN.as_secs(), async || {
        let state = clairvoy.state().await?;
        if canary(&state).stepped_back.is_some() { Ok(state) } else { Err(format!("{:#?}", canary(&state))) }
    })
    .await;
    assert!(began.elapsed() <= STEPS_BACK_WITHIN);
    let back = canary(&state).stepped_back.clone().unwrap();
    assert!(back.at >= began_at && back.reason.contains("steered requests waited"), "{back:?}");
    assert_eq!((state.models[0].rung.as_str(), state.models[0].predictive_ratio), ("canary", 0.0));
    assert!(state.models[0].fallback.as_ref().unwrap().contains(&back.reason));
    let decision = state.decisions.iter().find(|decision| decision.kind == "canary").unwrap();
    assert_eq!((&decision.id, decision.changes[0].to), (&back.decision, Some(0.0)));
    clairvoy.event("the canary of model chat steps back to `advise`").await;
    assert!(clairvoy.metrics().await.contains("clairvoy_model_canary_stepped_back{model=\"chat\"} 1"));
    clairvoy.in_sync().await;
    load.sent_on().await;
    let before = envoy.sent("chat").await.predicted;
    load.more(30).await;
    assert_eq!(envoy.sent("chat").await.predicted, before, "nothing goes by predictions any more");
    until("the evidence is stored", 30, async || {
        let (went_well, said) = run(&site, &["explain", "chat"]);
        let tells = said.contains(&back.reason) && said.contains("evidence that it is no chance");
        if went_well && tells { Ok(()) } else { Err(said) }
    })
    .await;

    // What is well again is nothing that anybody has looked into.
    fast.set_faults(Faults::default()).unwrap();
    assert!(clairvoy.stop().success());
    let clairvoy = site.serve().await;
    let still = |state: &State| canary(state).stepped_back.as_ref() == Some(&back);
    clairvoy.state_where("it stays so over a restart", still).await;
    load.more(50).await;
    assert_eq!(clairvoy.state().await.unwrap().models[0].predictive_ratio, 0.0);

    let (went_well, said) = run(&site, &["canary", "resume", "chat"]);
    assert!(went_well, "{said}");
    clairvoy.state_where("it steers again", steers).await;
    let (went_well, said) = run(&site, &["canary", "resume", "chat"]);
    assert!(!went_well && said.contains("has not stepped back"), "{said}");
    let path = "/api/v1/models/unknown/canary/resume";
    let answer = clairvoy.request(Method::POST, path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_of_proxies_steers_all_requests_of_those_that_are_chosen() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let [a, b] = servers.each_ref().map(SimulatedServer::address);
    let node = |is_chosen: bool| {
        let mut ids = (0..).map(|number| format!("edge-{number}"));
        ids.find(|id| (proxy_number(id) < 50) == is_chosen).unwrap()
    };
    let mut site = Site::new();
    let other = free_address();
    site.configure(&format!(
        "  - {{ name: west, node_cluster: west, listen: {other} }}\n\
         models:\n  - {{ name: chat, pools: [a], rung: canary, canary: {{ by: proxies, share: 0.5 }} }}\n\
         pools:\n  - {{ name: a, backends: [\"{a}\", \"{b}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let chosen = Envoy::launch(&site, &["--node-id", &node(true)]).await;
    chosen.wait_until_routing().await;
    let gateways = [site.gateway, other];
    (site.gateway, site.admin) = (other, free_address());
    let left_out = Envoy::launch(&site, &["--node-cluster", "west", "--node-id", &node(false)]).await;
    left_out.wait_until_routing().await;
    let half = |state: &State| {
        let in_sync = state.proxies.iter().filter(|proxy| proxy.state == ProxyState::InSync);
        in_sync.count() == 2 && state.models[0].predictive_ratio == 0.5
    };
    clairvoy.state_where("one of both Envoys is steered", half).await;
    let [load, others] = gateways.map(|gateway| Load::start(Chat::new(gateway, "chat", 5), 10.0));
    until("the chosen Envoy goes by predictions", 30, async || {
        let sent = chosen.sent("chat").await;
        if sent.predicted >= 20 { Ok(()) } else { Err(format!("{sent:?}")) }
    })
    .await;
    let before = chosen.sent("chat").await;
    load.more(50).await;
    others.more(50).await;
    let after = chosen.sent("chat").await;
    assert_eq!(after.by_capacity, before.by_capacity, "all of its requests");
    assert_eq!(left_out.sent("chat").await.predicted, 0);
    load.end().await;
    others.end().await;
}
