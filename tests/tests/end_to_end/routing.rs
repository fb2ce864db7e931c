//! What clients of the gateway get: answers of the model they name, or errors they can read.

use clairvoy_tests::{SimulatedServer, SpeedClass};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::support::{Chat, Clairvoy, Envoy, Site, client, content_type, error_of, model_server};

/// Two models with one server each, and an Envoy that takes bodies of up to 2 MiB.
struct Fleet {
    large: SimulatedServer,
    small: SimulatedServer,
    _envoy: Envoy,
    _clairvoy: Clairvoy,
    site: Site,
}

async fn fleet() -> Fleet {
    let (large, small) = (model_server("large", SpeedClass::Fast), model_server("small", SpeedClass::Fast));
    let mut site = Site::new();
    site.gateway_keys = "max_body_bytes: 2097152";
    site.configure(&format!(
        "models:\n  - {{ name: large, pools: [a] }}\n  - {{ name: small, pools: [b] }}\n\
         pools:\n  - {{ name: a, backends: [\"{}\"] }}\n  - {{ name: b, backends: [\"{}\"] }}\n",
        large.address(),
        small.address(),
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    Fleet { large, small, _envoy: envoy, _clairvoy: clairvoy, site }
}

fn served(server: &SimulatedServer) -> u64 {
    server.state().engine.totals.completed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_reach_the_model_that_they_name() {
    let fleet = fleet().await;
    let chat = Chat::new(fleet.site.gateway, "small", 3);

    let answer: Value = chat.request().send().await.unwrap().json().await.unwrap();
    assert_eq!((&answer["model"], &answer["usage"]["completion_tokens"]), (&json!("small"), &json!(3)));
    assert_eq!((served(&fleet.large), served(&fleet.small)), (0, 1));

    // What the client says about the internal header has no effect, and the server does not see it.
    let spoofed = chat.request().header("x-clairvoy-model", "large").send().await.unwrap();
    assert_eq!(spoofed.json::<Value>().await.unwrap()["model"], "small");

    let with_charset = client()
        .post(chat.url())
        .header(CONTENT_TYPE, "application/json; charset=utf-8")
        .body(chat.body().to_string())
        .send();
    assert_eq!(with_charset.await.unwrap().json::<Value>().await.unwrap()["model"], "small");
    assert_eq!((served(&fleet.large), served(&fleet.small)), (0, 3));

    // A request without a body that could name a model does so by a header.
    let url = format!("http://{}/health", fleet.site.gateway);
    let by_header = client().get(url).header("x-model", "large").send().await.unwrap();
    assert_eq!(by_header.status(), 200);
    assert_eq!(by_header.headers()["server"], "envoy");

    let list = client().get(format!("http://{}/v1/models", fleet.site.gateway)).send().await.unwrap();
    assert_eq!(content_type(&list), "application/json");
    let list: Value = list.json().await.unwrap();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(names, ["large", "small"]);

    let answer = Chat::new(fleet.site.gateway, "large", 60).stream().await.unwrap();
    assert_eq!(answer.tokens, 60);
    let span = *answer.arrivals.last().unwrap() - answer.arrivals[0];
    assert!(answer.arrivals.len() >= 5 && span.as_secs_f64() > 0.2, "one by one: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_answered_in_the_form_of_openai() {
    let fleet = fleet().await;
    let chat = Chat::new(fleet.site.gateway, "large", 1);
    let post = |body: String| client().post(chat.url()).header(CONTENT_TYPE, "application/json").body(body);
    let expect = async |request: reqwest::RequestBuilder, status: u16, code: &str| {
        let found = error_of(request.send().await.unwrap()).await;
        assert_eq!(found, (status, "invalid_request_error".to_owned(), code.to_owned()));
    };

    let unknown = Chat::new(fleet.site.gateway, "huge", 1);
    expect(unknown.request(), 404, "model_not_found").await;
    // A header does not make up for an unknown model in the body.
    expect(unknown.request().header("x-model", "large"), 404, "model_not_found").await;
    expect(post("{\"model\": \"large\"".to_owned()), 400, "invalid_json").await;
    expect(client().post(chat.url()).body("hello"), 400, "invalid_json").await;
    expect(post("{\"messages\": []}".to_owned()), 400, "missing_required_parameter").await;

    let padded = |bytes: usize| {
        let mut body = chat.body();
        body["messages"][0]["content"] = "x".repeat(bytes).into();
        post(body.to_string()).header("x-simulator-prompt-tokens", 100)
    };
    let long = padded(1_500_000).send().await.unwrap();
    assert_eq!(long.status(), 200, "1.5 MB are within the limit: {:?}", long.text().await);
    expect(padded(2_200_000), 413, "request_too_large").await;
    assert_eq!(served(&fleet.large), 1, "only the good one got through");
    assert_eq!(served(&fleet.small), 0);
}
