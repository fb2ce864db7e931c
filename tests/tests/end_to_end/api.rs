//! The API, as dashboards and scripts use it.

use std::time::Duration;

use clairvoy::view::{RecordView, State};
use clairvoy_tests::SpeedClass;
use futures::StreamExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{Clairvoy, Site, backend, content_type, free_address, model_server, until};

async fn answer(
    clairvoy: &Clairvoy,
    method: Method,
    path: &str,
    body: impl Into<reqwest::Body>,
) -> (u16, Value) {
    let kind = if path.contains("demand") { "text/csv" } else { "application/json" };
    let request = clairvoy.request(method, path).header("content-type", kind).body(body);
    let response = request.send().await.unwrap();
    assert_eq!(content_type(&response), "application/json", "{path}: {response:?}");
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_of_a_caller_are_explained() {
    let site = Site::new();
    site.configure("models:\n  - { name: chat, pools: [a, b] }\npools:\n  - { name: a }\n  - { name: b }\n");
    let clairvoy = site.serve().await;
    let address = free_address().to_string();
    let post = async |path: &str, body: String| answer(&clairvoy, Method::POST, path, body).await;
    let register = |address: &str| json!({ "address": address }).to_string();

    let (status, body) = post("/api/v1/pools/a/backends", register(&address)).await;
    assert_eq!((status, &body["pool"], &body["address"]), (201, &json!("a"), &json!(address)));
    let csv = |rows: &str| format!("timestamp_s,model,rps\n{rows}");
    for (path, body, status, words) in [
        ("/api/v1/pools/none/backends", register(&address), 404, "`none`"),
        ("/api/v1/pools/b/backends", register(&address), 409, "pool `a`"),
        ("/api/v1/pools/a/backends", register("here:80"), 400, "here:80"),
        ("/api/v1/pools/a/backends", register("0.0.0.0:80"), 400, "0.0.0.0:80"),
        ("/api/v1/pools/a/backends", "{\"adress\": \"127.0.0.1:1\"}".to_owned(), 400, "adress"),
        ("/api/v1/pools/a/backends", "{".to_owned(), 400, "address"),
        ("/api/v1/pools/b/backends/127.0.0.1:1/drain", String::new(), 404, "127.0.0.1:1"),
        ("/api/v1/demand", csv("1700000000,chat,many"), 400, "many"),
        ("/api/v1/demand", csv("1700000000,stranger,1"), 404, "stranger"),
        ("/api/v1/demand", "no,such,head\n".to_owned(), 400, "timestamp_s"),
    ] {
        let (found, answer) = post(path, body.clone()).await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(words), "{path} {body}: {found} {answer}");
        assert!(answer["error"]["type"].is_string(), "{answer}");
    }
    for (path, words) in
        [("/api/v1/nothing", "api/v1/nothing"), ("/api/v1/demand?model=stranger", "stranger")]
    {
        let (status, body) = answer(&clairvoy, Method::GET, path, "").await;
        assert!(status == 404 && body.to_string().contains(words), "{path}: {status} {body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_is_told_each_second_and_history_can_be_imported() {
    let server = model_server("chat", SpeedClass::Fast);
    let site = Site::new();
    site.configure(&format!(
        "forecast: {{ step: 10s, season: 60s, horizons: [10s, 30s] }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\"] }}\n",
        server.address()
    ));
    let clairvoy = site.serve().await;
    let response = clairvoy.request(Method::GET, "/api/v1/stream").send().await.unwrap();
    assert_eq!((response.status(), content_type(&response)), (StatusCode::OK, "text/event-stream"));
    let mut pieces = response.bytes_stream();
    let mut text = String::new();
    let three = async {
        while text.matches("event: state\n").count() < 3 || !text.ends_with("\n\n") {
            text += &String::from_utf8_lossy(&pieces.next().await.unwrap().unwrap());
        }
    };
    timeout(Duration::from_secs(20), three).await.expect("three events");
    let states: Vec<State> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let gap = (states[2].now - states[1].now).as_seconds_f64();
    assert!((0.5..3.0).contains(&gap), "{gap} s between two events");
    clairvoy
        .state_where("the backend tells that it is simulated", |state| {
            state.simulated && backend(state, server.address()).unwrap().telemetry_age_seconds.is_some()
        })
        .await;

    let now = chrono::Utc::now().timestamp() / 10 * 10;
    let rows: String = (1..=60).map(|step| format!("{},chat,{}\n", now - 10 * step, 5 + step % 6)).collect();
    let import = async || {
        let (status, body) =
            answer(&clairvoy, Method::POST, "/api/v1/demand", format!("timestamp_s,model,rps\n{rows}")).await;
        if status == 200 { Ok(body) } else { Err(body.to_string()) }
    };
    assert_eq!(until("the database takes history", 30, import).await["rows"], 60);
    until("the history and a forecast are there", 40, async || {
        let (status, body) =
            answer(&clairvoy, Method::GET, "/api/v1/demand?model=chat&window_seconds=600", "").await;
        let actual = body["actual"].as_array().map_or(0, Vec::len);
        let latest = body["latest"]["points"].as_array().map_or(0, Vec::len);
        if status == 200 && actual >= 55 && latest == 2 { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    // The history was replayed, each step forecast before it was shown.
    let state = clairvoy
        .state_where("the forecasts have a record", |state| {
            // A step that ended meanwhile began a model of its own, which the history then replaced.
            let learned = |record: &[RecordView]| record.len() == 2 && record[0].outcomes >= 50;
            state.models[0].forecast.as_ref().is_some_and(|forecast| learned(&forecast.record))
        })
        .await;
    for record in &state.models[0].forecast.as_ref().unwrap().record {
        assert!(
            record.outcomes >= 50 && record.skill_ratio.is_some() && !record.experts.is_empty(),
            "{record:?}"
        );
        assert!(record.coverage_q95.is_some_and(|share| share > 0.7), "{record:?}");
    }
    until("decisions are stored", 30, async || {
        let (status, body) = answer(&clairvoy, Method::GET, "/api/v1/decisions?limit=5", "").await;
        let first = body[0]["kind"].as_str().unwrap_or_default();
        if status == 200 && first == "membership" { Ok(()) } else { Err(format!("{status} {body}")) }
    })
    .await;
    let page = clairvoy.request(Method::GET, "/").send().await.unwrap();
    assert!(page.status() == StatusCode::OK && content_type(&page).starts_with("text/html"), "{page:?}");
    let metrics = clairvoy.metrics().await;
    assert!(metrics.ends_with("# EOF\n") && metrics.contains("clairvoy_backend_share{"), "{metrics}");
    for series in ["clairvoy_forecast_skill_ratio", "clairvoy_forecast_coverage_ratio"] {
        let labelled = format!("{series}{{model=\"chat\",horizon_seconds=\"30\"");
        assert!(metrics.contains(&labelled), "{labelled} in {metrics}");
    }
}
