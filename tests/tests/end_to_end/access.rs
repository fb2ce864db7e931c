//! Who may use the API and the discovery server.

use reqwest::header::{HOST, ORIGIN, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Envoy, Site, client, content_type, holds_for, until};

const TOKEN: &str = "correct horse battery staple";

#[test]
fn an_open_address_needs_a_token() {
    let mut site = Site::new();
    let refused = |site: &Site| {
        let output = site.run(&["serve", "--config", site.config_file().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    for field in ["api", "xds"] {
        site.write(&format!("listen: {{ {field}: \"0.0.0.0:{}\" }}\n", site.api.port()));
        let said = refused(&site);
        assert!(said.contains("token_env") && said.contains("line 1"), "{said}");
    }
    site.write("");
    site.set("CLAIRVOY_LISTEN_API", "0.0.0.0:18080");
    assert!(refused(&site).contains("token_env"));

    let mut site = Site::new();
    site.listen_keys = "token_env: FLEET_TOKEN";
    site.configure("");
    assert!(refused(&site).contains("FLEET_TOKEN"));
    site.set("FLEET_TOKEN", "short");
    let said = refused(&site);
    assert!(said.contains("FLEET_TOKEN") && !said.contains("short\""), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_nobody_gets_in_without_it() {
    let mut site = Site::new();
    site.listen_keys = "token_env: FLEET_TOKEN";
    site.set("FLEET_TOKEN", TOKEN);
    site.configure("");
    let clairvoy = site.serve().await.with_token(TOKEN);
    let url = format!("http://{}/api/v1/state", site.api);

    for request in [
        client().get(&url),
        client().get(&url).bearer_auth("correct horse battery stable"),
        client().get(&url).basic_auth("anna", None::<&str>),
        client().get(format!("http://{}/metrics", site.api)),
        client().post(format!("http://{}/api/v1/pools/a/backends", site.api)),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{answer:?}");
        assert!(answer.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(content_type(&answer), "application/json");
        let body: Value = answer.json().await.unwrap();
        assert!(body["error"]["message"].as_str().is_some_and(|text| text.contains("token")), "{body}");
    }
    let basic = client().get(&url).basic_auth("anybody", Some(TOKEN)).send().await.unwrap();
    assert_eq!(basic.status(), StatusCode::OK);
    // The page itself holds no data, and asks its user for the token.
    for open in ["healthz", "readyz", ""] {
        let answer = client().get(format!("http://{}/{open}", site.api)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{open}");
    }

    let stranger = Envoy::launch(&site, &[]).await;
    until("Envoy without the token has tried", 30, async || {
        match stranger.stat("cluster.clairvoy_xds.upstream_rq_total").await {
            0 | 1 => Err(stranger.log()),
            _ => Ok(()),
        }
    })
    .await;
    assert!(clairvoy.state().await.unwrap().proxies.is_empty());
    holds_for("it is told nothing", 1.0, async || {
        match stranger.stat("listener_manager.listener_added").await {
            0 => Ok(()),
            added => Err(format!("{added} listeners")),
        }
    })
    .await;
    drop(stranger);

    let friend = Envoy::launch(&site, &["--token-env", "FLEET_TOKEN"]).await;
    friend.wait_until_routing().await;
    assert_eq!(clairvoy.in_sync().await.node_id, "envoy-a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_pages_of_other_sites_get_nothing() {
    let site = Site::new();
    site.configure("models:\n  - { name: chat, pools: [a] }\npools:\n  - { name: a }\n");
    let clairvoy = site.serve().await;
    let register = || {
        let body = serde_json::json!({ "address": "127.0.0.1:9" });
        clairvoy.request(Method::POST, "/api/v1/pools/a/backends").json(&body)
    };
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status();
    assert_eq!(status(register().header(ORIGIN, "http://evil.example")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(register().header(ORIGIN, "null")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(register().header(HOST, "evil.example")).await, StatusCode::FORBIDDEN);
    let read = || clairvoy.request(Method::GET, "/api/v1/state");
    assert_eq!(status(read().header(HOST, "evil.example")).await, StatusCode::FORBIDDEN);
    assert_eq!(
        status(read().header(HOST, format!("evil.example:{}", site.api.port()))).await,
        StatusCode::FORBIDDEN
    );
    assert_eq!(clairvoy.state().await.unwrap().backends.len(), 0, "nothing was registered");

    assert_eq!(status(read().header(HOST, format!("localhost:{}", site.api.port()))).await, StatusCode::OK);
    let own_page = format!("http://{}", site.api);
    assert_eq!(status(register().header(ORIGIN, own_page)).await, StatusCode::CREATED);
}
