//! Charts over the API.

use clairvoy_tests::SpeedClass;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Clairvoy, Site, model_server, until};

async fn ask(clairvoy: &Clairvoy, query: &str) -> (StatusCode, Value) {
    let answer = clairvoy.request(Method::GET, &format!("/api/v1/history?{query}")).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chart_is_drawn_of_a_backend_a_pool_and_a_model() {
    let server = model_server("chat", SpeedClass::Fast);
    let site = Site::new();
    let address = server.address();
    site.configure(&format!(
        "telemetry: {{ interval: 200ms, deadline: 200ms }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{address}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let now = chrono::Utc::now().timestamp();
    for subject in [format!("backend={address}"), "pool=a".to_owned(), "model=chat".to_owned()] {
        let query = format!("{subject}&metric=running&from={}&to={}", now - 100, now + 100);
        until(&format!("a chart of {subject}"), 60, async || {
            let (status, chart) = ask(&clairvoy, &query).await;
            let points = chart["points"].as_array().map_or(0, Vec::len);
            assert!(status != StatusCode::BAD_REQUEST, "{chart}");
            if points > 0 && chart["source"] == "raw" { Ok(()) } else { Err(format!("{status} {chart}")) }
        })
        .await;
        // Nothing is rolled up yet; what is configured has an empty chart.
        let (status, chart) =
            ask(&clairvoy, &format!("{subject}&metric=ttft_p95_seconds&from={}", now - 14 * 86_400)).await;
        assert_eq!((status, chart["points"].as_array().map(Vec::len)), (StatusCode::OK, Some(0)), "{chart}");
    }
    for (query, expected, words) in [
        ("model=nobody&metric=running", StatusCode::NOT_FOUND, "no model `nobody`"),
        ("metric=running", StatusCode::BAD_REQUEST, "one of `model`, `pool` and `backend`"),
        ("model=chat&metric=speed", StatusCode::BAD_REQUEST, "speed"),
        ("model=chat&metric=running&from=then", StatusCode::BAD_REQUEST, "is no time"),
        ("model=chat&metric=running&from=5&to=3", StatusCode::BAD_REQUEST, "must lie before"),
    ] {
        let (status, answer) = ask(&clairvoy, query).await;
        assert_eq!(status, expected, "{query}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(words), "{query}: {answer}");
    }
}
