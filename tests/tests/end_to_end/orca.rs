//! What backends say of themselves in their answers, brought by Envoy.

use std::net::SocketAddr;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clairvoy::view::{BackendState, DemandSource};
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{Chat, Envoy, Site, backend, until};

/// The ways in which a server writes its report.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Json,
    Text,
    Binary,
    BinaryHeader,
}

/// A protobuf field of length-delimited type.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

/// An `OrcaLoadReport` with `named_metrics` (8) and `application_utilization` (9).
fn binary(waiting: f64, kv: f64, utilisation: f64) -> String {
    let number = |number: u8, value: f64| [&[number << 3 | 1][..], &value.to_le_bytes()].concat();
    let named = |name: &str, value: f64| field(8, &[field(1, name.as_bytes()), number(2, value)].concat());
    let report =
        [named("num_requests_waiting", waiting), named("kv_cache_usage_perc", kv), number(9, utilisation)];
    STANDARD.encode(report.concat())
}

fn report(form: Form, waiting: f64) -> (HeaderName, String) {
    let (kv, utilisation) = (waiting / 10.0, 0.5);
    let name = HeaderName::from_static("endpoint-load-metrics");
    match form {
        Form::Json => {
            let named = json!({"num_requests_waiting": waiting, "kv_cache_usage_perc": kv});
            let report = json!({"named_metrics": named, "application_utilization": utilisation});
            (name, format!("JSON {report}"))
        }
        Form::Text => {
            let report = format!(
                "named_metrics.num_requests_waiting={waiting}, named_metrics.kv_cache_usage_perc={kv}, \
                 application_utilization={utilisation}"
            );
            (name, format!("TEXT {report}"))
        }
        Form::Binary => (name, format!("BIN {}", binary(waiting, kv, utilisation))),
        Form::BinaryHeader => {
            (HeaderName::from_static("endpoint-load-metrics-bin"), binary(waiting, kv, utilisation))
        }
    }
}

/// A server that reports its load as vLLM does: when it is asked to.
async fn server(form: Form, waiting: f64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |headers: HeaderMap| async move {
        let mut answer = HeaderMap::new();
        if headers.get("endpoint-load-metrics-format").is_some_and(|wanted| wanted == "json") {
            let (name, value) = report(form, waiting);
            answer.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        (StatusCode::OK, answer, "{}")
    };
    let router = Router::new().route("/v1/chat/completions", post(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_without_a_metrics_page_are_known_by_their_answers() {
    let mut expected = Vec::new();
    for (form, waiting) in
        [(Form::Json, 1.0), (Form::Text, 2.0), (Form::Binary, 3.0), (Form::BinaryHeader, 4.0)]
    {
        expected.push((server(form, waiting).await, form, waiting));
    }
    let site = Site::new();
    let backends: Vec<String> = expected.iter().map(|(address, ..)| format!("\"{address}\"")).collect();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - name: a\n    telemetry: push\n    \
         orca:\n      queue_depth: named_metrics.num_requests_waiting\n      \
         kv_used: named_metrics.kv_cache_usage_perc\n      gpu_utilisation: application_utilization\n    \
         backends: [{}]\n",
        backends.join(", ")
    ));
    let clairvoy = site.serve().await;
    let envoy = Envoy::launch(&site, &[]).await;
    envoy.wait_until_routing().await;

    let chat = Chat::new(site.gateway, "chat", 1);
    until("each backend is known by its answers", 90, async || {
        for _ in 0..8 {
            let answer = chat.request().send().await.map_err(|error| format!("{error:?}"))?;
            let shown = answer.headers().keys().any(|name| name.as_str().starts_with("endpoint-load"));
            assert!(!shown, "clients are told nothing of the load: {answer:?}");
        }
        let state = clairvoy.state().await?;
        for (address, form, waiting) in &expected {
            let found = backend(&state, *address).ok_or("not there")?;
            let shown = (found.queue_depth, found.kv_used, found.gpu_utilisation);
            // Gauges are kept with the digits of a 32-bit number.
            let near =
                |found: Option<f64>, wanted: f64| found.is_some_and(|found| (found - wanted).abs() < 1e-6);
            let right = near(shown.0, *waiting) && near(shown.1, waiting / 10.0) && near(shown.2, 0.5);
            if !right || found.state != BackendState::Ready {
                return Err(format!("{form:?}: {:?} {shown:?}", found.state));
            }
        }
        Ok(())
    })
    .await;
    let page = clairvoy.metrics().await;
    assert!(page.contains("clairvoy_push_requests_total{protocol=\"orca\",outcome=\"ok\"}"), "{page}");
    assert!(page.contains("clairvoy_telemetry_targets 0"), "nothing is scraped");
    until("demand is known", 60, async || {
        chat.request().send().await.map_err(|error| format!("{error:?}"))?;
        let state = clairvoy.state().await?;
        let model = &state.models[0];
        let known = model.demand_rps > 0.0 && model.demand_source == DemandSource::Envoys;
        if known { Ok(()) } else { Err(format!("{} {:?}", model.demand_rps, model.demand_source)) }
    })
    .await;
}
