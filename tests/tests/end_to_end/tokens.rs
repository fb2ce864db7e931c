//! What Envoys log of tokens and durations, and what they report of groups.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use clairvoy::view::{DemandSource, State};
use tokio::net::TcpListener;

use crate::support::{Chat, Site, until};

/// Tokens of an answer, in its header.
const OUTPUT_TOKENS: f64 = 7.0;
/// How long an answer takes.
const TAKES: Duration = Duration::from_millis(200);

/// A model server that is done after a moment, and tells the tokens of its answer.
async fn answering_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let chat = || async {
        tokio::time::sleep(TAKES).await;
        ([("X-Output-Tokens", "7")], axum::Json(serde_json::json!({ "choices": [] })))
    };
    let page = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n\
                # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 0\n";
    let router = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/metrics", get(move || async move { page }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn configure(site: &Site, server: SocketAddr, telemetry: &str) {
    site.configure(&format!(
        "telemetry:\n{telemetry}models:\n  - {{ name: \"42\", pools: [a] }}\n\
         pools:\n  - {{ name: a, engine: vllm, backends: [\"{server}\"] }}\n"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_in_headers_and_metadata_and_durations_are_told_and_groups_are_reported() {
    let server = answering_server().await;
    let site = Site::new();
    // The gateway's own filter writes the model's name into metadata: here it is a number.
    let telemetry = "  access_log:\n    prompt_tokens: { metadata: { namespace: clairvoy, key: model } }\n    \
                     output_tokens: { header: X-Output-Tokens }\n";
    configure(&site, server, telemetry);
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let chat = Chat::new(site.gateway, "42", 1);
    let is_served = |state: &State| state.backends.first().is_some_and(|backend| backend.share > 0.0);
    clairvoy.state_where("the server takes requests", is_served).await;
    let mut sent = 0.0;
    until("a request is answered", 30, async || {
        let answer = chat.request().send().await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
    })
    .await;
    sent += 1.0;
    for _ in 0..9 {
        assert!(chat.request().send().await.unwrap().status().is_success());
        sent += 1.0;
    }
    let counted = |state: &State| {
        let backend = &state.backends[0];
        let model = &state.models[0];
        backend.gateway_responses == sent
            && backend.gateway_output_tokens == sent * OUTPUT_TOKENS
            && backend.gateway_prompt_tokens == sent * 42.0
            && model.tokens_source == DemandSource::Envoys
            && model.tokens_per_second > 0.0
            && model.prompt_tokens_per_second > Some(0.0)
    };
    let state = clairvoy.state_where("tokens and answers are counted", counted).await;
    let backend = &state.backends[0];
    let (mean, sum) = (backend.response_seconds.unwrap(), backend.gateway_responses_seconds);
    let takes = TAKES.as_secs_f64();
    assert!((takes..takes + 1.0).contains(&mean), "{backend:?}");
    assert!((takes * sent..(takes + 1.0) * sent).contains(&sum), "{backend:?}");

    until("requests of the group are reported", 60, async || {
        chat.request().send().await.map_err(|error| error.to_string())?;
        let state = clairvoy.state().await?;
        let share = &state.models[0].shares[0];
        let told = share.requests_per_second > Some(0.0) && share.requests_in_progress.is_some();
        if told { Ok(()) } else { Err(format!("{share:?}")) }
    })
    .await;
    let page = clairvoy.metrics().await;
    for series in [
        "clairvoy_envoy_group_requests_per_second{model=\"42\",group=\"a\"}",
        "clairvoy_envoy_output_tokens{model=\"42\",pool=\"a\"",
        "clairvoy_envoy_tokens_per_second{model=\"42\",kind=\"prompt\"}",
        "clairvoy_envoy_log_entries_without_tokens_total 0",
    ] {
        assert!(page.contains(series), "{series} is missing in:\n{page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_load_reports_all_else_goes_on() {
    let server = answering_server().await;
    let site = Site::new();
    configure(&site, server, "  load_reports: { enabled: false }\n");
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let chat = Chat::new(site.gateway, "42", 1);
    until("Envoy has tried to report, and a request is answered and logged", 60, async || {
        let answer = chat.request().send().await.map_err(|error| error.to_string())?;
        let state = clairvoy.state().await?;
        let tried = envoy.stat("load_reporter.errors").await;
        let logged = state.backends[0].gateway_requests;
        let done = answer.status().is_success() && tried > 0 && logged > 0.0;
        if done { Ok(()) } else { Err(format!("{} {tried} {logged}", answer.status())) }
    })
    .await;
    let page = clairvoy.metrics().await;
    assert!(page.contains("xds_intake_messages_total{service=\"lrs\"} 0"), "{page}");
    assert_eq!(clairvoy.state().await.unwrap().models[0].demand_source, DemandSource::Servers);
}
