//! What an autoscaler is told.

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use clairvoy_tests::SpeedClass;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use crate::support::{Chat, Load, Site, model_server};

const KEY: &[u8] = b"a key of thirty-two bytes, or so";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_growing_load_asks_for_replicas_by_a_signed_event() {
    let (hook, mut calls) = receiver().await;
    let server = model_server("chat", SpeedClass::Fast);
    let mut site = Site::new();
    site.set("HOOK_SECRET", &format!("whsec_{}", STANDARD.encode(KEY)));
    site.configure(&format!(
        "forecast: {{ step: 1s, season: 60s, horizons: [1s, 10s] }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - name: a\n    capacity_rps: 1\n    replicas: {{ min: 1, max: 3, cold_start: 10s }}\n    backends: [\"{}\"]\n\
         signals: {{ webhooks: [{{ url: \"{hook}\", secret_env: HOOK_SECRET }}] }}\n",
        server.address()
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    assert!(calls.try_recv().is_err(), "an idle fleet asks for nothing");
    let load = Load::start(Chat::new(site.gateway, "chat", 10), 5.0);

    let mut seen = Vec::new();
    let body = loop {
        let (headers, body) = timeout(Duration::from_secs(60), calls.recv()).await.expect("a call").unwrap();
        let body = verified(&headers, &body);
        seen.push(body["data"]["replicas"].clone());
        if body["data"]["replicas"] == 3 {
            break body;
        }
    };
    load.end().await;
    assert_eq!(body["specversion"], "1.0");
    assert_eq!(
        (&body["source"], &body["type"]),
        (&"/clairvoy".into(), &"dev.clairvoy.replicas.planned".into())
    );
    assert_eq!((&body["subject"], &body["data"]["pool"]), (&"a".into(), &"a".into()));
    assert_eq!((&body["data"]["model"], &body["data"]["current"]), (&"chat".into(), &1.into()));
    assert_eq!(body["data"]["horizon_seconds"], 10);
    assert!(body["data"]["reason"].as_str().is_some_and(|reason| reason.contains("requests/s")), "{body}");
    let expires: DateTime<Utc> = body["data"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(expires > Utc::now());
    assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "the same plan is told once: {seen:?}");

    let delivered = |state: &clairvoy::view::State| state.totals.webhooks_delivered == seen.len() as u64;
    let state = clairvoy.state_where("the delivery is counted", delivered).await;
    let decision = state.decisions.iter().find(|decision| body["id"] == decision.id);
    assert_eq!(decision.map(|decision| decision.kind.as_str()), Some("replicas"), "{:#?}", state.decisions);
    assert_eq!(state.pools[0].replicas.planned, 3);
}

/// An endpoint that takes whatever comes and hands it over.
async fn receiver() -> (String, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
    let (calls_in, calls) = mpsc::unbounded_channel();
    let take = move |headers: HeaderMap, body: Bytes| {
        let _ = calls_in.send((headers, body));
        async { StatusCode::NO_CONTENT }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, Router::new().route("/hook", post(take))).into_future());
    (url, calls)
}

/// Checks a call as its receiver would, by the shared secret, and returns the body.
fn verified(headers: &HeaderMap, body: &[u8]) -> Value {
    let text = |name: &str| headers[name].to_str().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    mac.update(format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).as_bytes());
    mac.update(body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(text("webhook-signature"), expected);
    assert_eq!(text("content-type"), "application/cloudevents+json");
    let sent: i64 = text("webhook-timestamp").parse().unwrap();
    assert!((Utc::now().timestamp() - sent).abs() < 60);
    let body: Value = serde_json::from_slice(body).unwrap();
    assert_eq!(body["id"], text("webhook-id"));
    body
}
