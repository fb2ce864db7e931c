//! More requests come than the servers can take: those that can wait are refused first, and none when it is over, or when
//! nobody watches any more.

use std::time::Duration;

use clairvoy_tests::{SimulatedServer, SpeedClass};
use reqwest::StatusCode;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::Instant;

use crate::support::{Ask, Clairvoy, Class, Sign, Site, error_of, model_server, send_signal, until};

/// Requests of the tests have 2,000 tokens of prompt and 20 of output; a slow server takes a little more than three a second.
const CAPACITY_RPS: f64 = 3.0;
const TOKENS: u32 = 20;
/// Envoys forget 6 s after the last heartbeat; the rest is room for a busy machine.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// The first token of an interactive request, while all is as it should be.
const SLO: Duration = Duration::from_secs(5);

fn configure(site: &Site, server: &SimulatedServer, model: &str) {
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a], slo: {{ ttft_p95: 5s }}, {model} }}\n\
         pools:\n  - {{ name: a, capacity_rps: {CAPACITY_RPS}, backends: [\"{}\"] }}\n",
        server.address()
    ));
}

/// Waits until part of a lane is refused as wanted.
async fn refuses(clairvoy: &Clairvoy, what: &str, wanted: impl Fn(f64, f64) -> bool) {
    until(what, 120, async || {
        let shed = clairvoy.state().await?.models.remove(0).shed;
        if wanted(shed.batch_ratio, shed.interactive_ratio) { Ok(()) } else { Err(format!("{shed:?}")) }
    })
    .await;
}

/// Waits until no request waits at the server.
async fn drained(clairvoy: &Clairvoy) {
    until("nothing waits any more", 120, async || {
        let state = clairvoy.state().await?;
        match state.backends[0].queue_depth {
            Some(waiting) if waiting <= 1.0 => Ok(()),
            waiting => Err(format!("{waiting:?} wait; {:?}", state.models[0].shed)),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_is_refused_in_overload_and_interactive_requests_keep_their_objective() {
    let server = model_server("chat", SpeedClass::Slow);
    let site = Site::new();
    configure(&site, &server, "");
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let start = |sign, rps| Class::start(Ask::new(site.gateway, sign, TOKENS), rps);
    let interactive = start(Sign::None, 0.8);
    let (by_header, by_tier) = (start(Sign::Header, 3.0), start(Sign::Tier("flex"), 3.0));

    refuses(&clairvoy, "batch is refused", |batch, _| batch > 0.5).await;
    clairvoy.event("requests for model chat are refused").await;
    drained(&clairvoy).await;
    let calm = Instant::now();
    until("interactive requests are answered", 120, async || {
        let answered = interactive.since(calm).len();
        if answered >= 20 { Ok(()) } else { Err(format!("{answered}")) }
    })
    .await;
    let answered = interactive.since(calm);
    let mut first: Vec<Duration> = answered.iter().filter_map(|outcome| outcome.first).collect();
    first.sort();
    assert_eq!(first.len(), answered.len(), "none is refused: {answered:?}");
    assert!(first[first.len() * 9 / 10] <= SLO, "{first:?}");
    for class in [&by_header, &by_tier] {
        let outcomes = class.since(calm);
        let refused = outcomes.iter().filter(|outcome| outcome.status == StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.clone().all(|outcome| outcome.retry_after.as_deref() == Some("10")), "{outcomes:?}");
        let part = refused.count() as f64 / outcomes.len() as f64;
        assert!((0.5..0.95).contains(&part), "{part} of {}", outcomes.len());
    }
    // What is refused is demand, and is counted.
    let model = clairvoy.state().await.unwrap().models.remove(0);
    assert!((5.5..8.0).contains(&model.demand_rps), "{model:?}");
    assert!(model.shed.batch_refused > 20.0 && model.shed.interactive_refused == 0.0, "{:?}", model.shed);
    let metrics = clairvoy.metrics().await;
    assert!(metrics.contains("clairvoy_model_refused_ratio{model=\"chat\",lane=\"batch\"} 0."), "{metrics}");
    let config = site.config_file();
    let arguments = ["explain", "chat", "--config", config.to_str().unwrap()];
    let said = tokio::task::block_in_place(|| site.run(&arguments));
    assert!(String::from_utf8_lossy(&said.stdout).contains("requests above that"), "{said:?}");

    let frozen = Instant::now();
    send_signal(clairvoy.pid(), Signal::STOP);
    until("nothing has been refused for a while", 60, async || {
        let last = by_header.last_refused().max(by_tier.last_refused()).unwrap_or(frozen);
        if last.elapsed() > ENDS_WITHIN { Ok(()) } else { Err(format!("{:?} ago", last.elapsed())) }
    })
    .await;
    let last = by_header.last_refused().max(by_tier.last_refused()).unwrap();
    assert!(last > frozen && last - frozen < ENDS_WITHIN, "{:?}", last.checked_duration_since(frozen));
    send_signal(clairvoy.pid(), Signal::CONT);
    refuses(&clairvoy, "batch is refused again", |batch, _| batch > 0.3).await;

    drop((by_header.end().await, by_tier.end().await));
    refuses(&clairvoy, "nothing is refused any more", |batch, _| batch == 0.0).await;
    clairvoy.event("no requests for model chat are refused any more").await;
    clairvoy.in_sync().await;
    let after = start(Sign::Header, 1.0);
    until("batch is answered", 60, async || {
        let answered = after.since(calm).len();
        if answered >= 10 { Ok(()) } else { Err(format!("{answered}")) }
    })
    .await;
    assert!(after.end().await.iter().all(|outcome| outcome.status == StatusCode::OK));
    let all = interactive.end().await;
    assert!(all.iter().all(|outcome| outcome.status == StatusCode::OK), "{all:?}");
    drop(envoy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interactive_requests_are_dropped_where_that_is_allowed_and_let_in_when_nobody_watches() {
    let server = model_server("chat", SpeedClass::Slow);
    let site = Site::new();
    configure(&site, &server, "lane: interactive, shedding: { interactive: 0.9 }");
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let class = Class::start(Ask::new(site.gateway, Sign::Header, TOKENS), 7.0);
    refuses(&clairvoy, "interactive is refused", |_, interactive| interactive > 0.4).await;
    let ask = Ask::new(site.gateway, Sign::None, TOKENS);
    let refused = until("one is refused", 60, async || match ask.send(None).await {
        refused if refused.status() == StatusCode::SERVICE_UNAVAILABLE => Ok(refused),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(refused.headers()["retry-after"], "2");
    let (status, kind, code) = error_of(refused).await;
    assert_eq!((status, kind.as_str(), code.as_str()), (503, "server_error", "overloaded"));
    // Envoy's load reports have these, and its log tells them apart.
    until("they are counted once", 60, async || {
        let model = clairvoy.state().await?.models.remove(0);
        let is_right = (5.5..8.5).contains(&model.demand_rps) && model.shed.interactive_refused > 10.0;
        if is_right { Ok(()) } else { Err(format!("{model:?}")) }
    })
    .await;

    let frozen = Instant::now();
    send_signal(clairvoy.pid(), Signal::STOP);
    until("nothing has been refused for a while", 60, async || {
        let last = class.last_refused().unwrap_or(frozen);
        if last.elapsed() > ENDS_WITHIN { Ok(()) } else { Err(format!("{:?} ago", last.elapsed())) }
    })
    .await;
    let last = class.last_refused().unwrap();
    assert!(last > frozen && last - frozen < ENDS_WITHIN, "{:?}", last.checked_duration_since(frozen));
    send_signal(clairvoy.pid(), Signal::CONT);
    class.end().await;
    drop(envoy);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_is_what_the_rules_say_and_has_bounds_of_its_own() {
    let server = model_server("chat", SpeedClass::Slow);
    let mut site = Site::new();
    // So many that Envoy would refuse one regular expression with all of them.
    site.gateway_keys = "lanes: { paths: [/v1/completions, /v1/embeddings, /internal/evaluation/of/checkpoints], \
                         header_values: [batch, nightly-evaluation-of-all-checkpoints, summaries-of-documents] }";
    configure(&site, &server, "rung: shadow, max_requests: { batch: 1 }");
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    // It has the one place for as long as the test takes.
    let endless = Ask::new(site.gateway, Sign::Tier("batch"), 4000).send(None).await;
    assert_eq!(endless.status(), StatusCode::OK);
    let status = async |sign, more| Ask::new(site.gateway, sign, 1).send(more).await.status();
    let full = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(status(Sign::Header, None).await, full);
    assert_eq!(status(Sign::None, Some(("x-request-class", "BATCH"))).await, full);
    assert_eq!(status(Sign::None, Some(("x-request-class", "summaries-of-documents"))).await, full);
    assert_eq!(status(Sign::Tier("Flex"), None).await, full);
    let status_at = async |path| Ask::new(site.gateway, Sign::None, 1).at(path).send(None).await.status();
    for path in ["/v1/completions?stream=true", "/V1/Embeddings", "/internal/evaluation/of/checkpoints/12"] {
        assert_eq!(status_at(path).await, full, "{path}");
    }
    assert_ne!(status_at("/v1/completions-of-mine").await, full);
    // The internal header is ours.
    assert_eq!(status(Sign::Header, Some(("x-clairvoy-lane", "interactive|"))).await, full);
    assert_eq!(status(Sign::None, Some(("x-clairvoy-lane", "batch|"))).await, StatusCode::OK);
    for (sign, more) in [
        (Sign::None, None),
        (Sign::Tier("default"), None),
        (Sign::Tier("not-batch"), None),
        (Sign::None, Some(("x-request-class", "interactive"))),
    ] {
        assert_eq!(status(sign, more).await, StatusCode::OK, "{sign:?} {more:?}");
    }
    let lanes = |state: &clairvoy::view::State| state.models[0].shed.batch_ratio == 0.0;
    clairvoy.state_where("nothing is refused", lanes).await;
    let page = envoy.admin("/config_dump?resource=dynamic_route_configs").await;
    let names = |name: &str| Value::to_string(&page).matches(name).count();
    assert!(names("interactive/chat") >= 2 && names("batch/chat") >= 2, "{page}");
    drop(endless);
}
