//! Envoys as a source of telemetry: load reports and access logs.

use std::time::Duration;

use clairvoy::view::{Demand, DemandSource, State};
use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use reqwest::Method;

use crate::support::{Chat, Clairvoy, Envoy, Load, Site, backend, holds_for, model_server, until};

/// Seconds of a demand step.
const STEP: f64 = 2.0;

fn configure(site: &Site, servers: &[SimulatedServer]) {
    let list: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    site.configure(&format!(
        "forecast: {{ step: 2s, season: 60s, horizons: [2s, 10s] }}\n\
         telemetry: {{ access_log: {{ stream_interval: 1s }} }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{}] }}\n",
        list.join(", ")
    ));
}

fn source(state: &State) -> DemandSource {
    state.models[0].demand_source
}

/// Requests of the known demand steps that began at or after a time.
async fn counted(clairvoy: &Clairvoy, from: i64) -> Result<f64, String> {
    let request = clairvoy.request(Method::GET, "/api/v1/demand?model=chat&window_seconds=300");
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let demand: Demand = answer.json().await.map_err(|error| error.to_string())?;
    Ok(demand.actual.iter().filter(|point| point.t >= from).map(|point| point.rps * STEP).sum())
}

fn series(page: &str, start: &str) -> f64 {
    let values = page.lines().filter(|line| line.starts_with(start));
    values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_tell_demand_and_first_bytes_and_nobody_waits_for_clairvoy() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let site = Site::new();
    configure(&site, &servers);
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    clairvoy
        .state_where("the Envoy's reports are the demand", |state| source(state) == DemandSource::Envoys)
        .await;

    let load = Load::start(Chat::new(site.gateway, "chat", 40), 5.0);
    let agrees = |state: &State| {
        servers.iter().all(|server| {
            let view = backend(state, server.address()).unwrap();
            let told = view.ttft_seconds.zip(view.first_byte_seconds);
            // The simulator's own clock has steps of 20 ms.
            told.is_some_and(|(server, envoy)| (server - envoy).abs() < 0.04)
        })
    };
    clairvoy.state_where("first bytes agree with the servers' TTFT", agrees).await;
    let runs = |state: &State| {
        let running = state.backends.iter().map(|backend| backend.requests_in_progress.unwrap_or(0.0));
        running.sum::<f64>() >= 1.0
    };
    clairvoy.state_where("requests in progress are told", runs).await;
    load.end().await;

    // From here on only the Envoy knows what is asked.
    for server in &servers {
        server.set_faults(Faults { metrics_hang: true, ..Faults::default() }).unwrap();
    }
    let is_quiet = |state: &State| {
        let stale = state.backends.iter().all(|backend| backend.telemetry_age_seconds > Some(6.0));
        stale && state.models[0].demand_rps == 0.0 && source(state) == DemandSource::Envoys
    };
    let quiet = clairvoy.state_where("the servers are silent, and demand is known", is_quiet).await;
    // The requests of a report count as spread over its two seconds, some of which may lie before the first of them.
    let began = quiet.now.timestamp() - 4;
    let load = Load::start(Chat::new(site.gateway, "chat", 40), 10.0);
    load.more(30).await;
    let state = clairvoy.state().await.unwrap();
    assert_eq!(source(&state), DemandSource::Envoys);
    assert!(state.models[0].demand_rps > 0.0, "{:?}", state.models);
    let sent = load.end().await as f64;
    until("the steps hold as many requests as were sent", 30, async || {
        let counted = counted(&clairvoy, began).await?;
        assert!(counted < sent + 0.5, "{counted} of {sent}: counted twice");
        if counted > sent - 0.5 { Ok(()) } else { Err(format!("{counted} of {sent}")) }
    })
    .await;
    holds_for("nothing is added", 3.0, async || {
        let counted = counted(&clairvoy, began).await?;
        if (counted - sent).abs() < 0.5 { Ok(()) } else { Err(format!("{counted} of {sent}")) }
    })
    .await;

    let page = clairvoy.metrics().await;
    assert_eq!(series(&page, "clairvoy_envoy_reporters "), 1.0);
    assert_eq!(series(&page, "clairvoy_envoy_demand_source{model=\"chat\"}"), 1.0);
    assert!(series(&page, "clairvoy_envoy_log_entries_total{outcome=\"kept\"}") >= sent, "{page}");
    for none in ["entries_total{outcome=\"foreign\"}", "entries_total{outcome=\"sampled_out\"}"] {
        assert_eq!(series(&page, &format!("clairvoy_envoy_log_{none}")), 0.0, "{none}");
    }
    assert_eq!(series(&page, "xds_intake_dropped_entries_total"), 0.0);

    let load = Load::start(Chat::new(site.gateway, "chat", 20), 20.0);
    load.more(10).await;
    clairvoy.kill();
    load.more(60).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_backend_are_counted_and_requests_without_one_are_demand() {
    let servers = [model_server("chat", SpeedClass::Fast)];
    let site = Site::new();
    configure(&site, &servers);
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    clairvoy
        .state_where("the Envoy's reports are the demand", |state| source(state) == DemandSource::Envoys)
        .await;
    servers[0].set_faults(Faults { error_rate: 1.0, ..Faults::default() }).unwrap();
    let chat = Chat::new(site.gateway, "chat", 3);
    for _ in 0..4 {
        assert!(chat.stream().await.is_err());
    }
    let counts = |state: &State| {
        let view = backend(state, servers[0].address()).unwrap();
        view.gateway_errors >= 4.0 && view.gateway_requests >= view.gateway_errors
    };
    clairvoy.state_where("errors are counted", counts).await;

    servers[0].set_faults(Faults { die: true, ..Faults::default() }).unwrap();
    let begin = tokio::time::Instant::now();
    until("requests that no backend takes are demand", 60, async || {
        let _ = chat.request().send().await;
        let state = clairvoy.state().await?;
        let asked = begin.elapsed() > Duration::from_secs(12);
        let demand = state.models[0].demand_rps;
        if asked && demand > 1.0 && source(&state) == DemandSource::Envoys {
            Ok(())
        } else {
            Err(format!("{demand} by {:?}", source(&state)))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_envoys_with_the_token_and_of_a_gateway_are_heard() {
    let servers = [model_server("chat", SpeedClass::Fast)];
    let mut site = Site::new();
    site.listen_keys = "token_env: FLEET_TOKEN";
    site.gateway_keys = "node_cluster: edge";
    site.set("FLEET_TOKEN", "correct horse battery staple");
    configure(&site, &servers);
    let clairvoy = site.serve().await.with_token("correct horse battery staple");

    let without = Envoy::launch(&site, &[]).await;
    until("an Envoy without the token has tried", 30, async || {
        match without.stat("cluster.clairvoy_xds.upstream_rq_total").await {
            0..4 => Err(without.log()),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(series(&clairvoy.metrics().await, "xds_intake_messages_total"), 0.0);
    drop(without);

    let foreign = Envoy::launch(&site, &["--token-env", "FLEET_TOKEN", "--node-cluster", "other"]).await;
    until("reports of an Envoy without a gateway are not believed", 30, async || {
        let page = clairvoy.metrics().await;
        let heard = series(&page, "clairvoy_envoy_load_reports_total{outcome=\"taken\"}");
        assert_eq!(heard, 0.0);
        let refused = series(&page, "clairvoy_envoy_load_reports_total{outcome=\"foreign\"}");
        if refused > 0.0 { Ok(()) } else { Err(foreign.log()) }
    })
    .await;
    drop(foreign);

    let friend = Envoy::launch(&site, &["--token-env", "FLEET_TOKEN"]).await;
    friend.wait_until_routing().await;
    let chat = Chat::new(site.gateway, "chat", 3);
    until("a friend reports and logs", 30, async || {
        chat.stream().await?;
        let page = clairvoy.metrics().await;
        let told = [
            series(&page, "clairvoy_envoy_load_reports_total{outcome=\"taken\"}"),
            series(&page, "clairvoy_envoy_log_entries_total{outcome=\"kept\"}"),
        ];
        if told.iter().all(|count| *count >= 1.0) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}
