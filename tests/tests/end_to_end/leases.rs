//! Backends that register themselves for a time, and who may.

use std::net::SocketAddr;

use clairvoy_tests::{SimulatedServer, SpeedClass};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Clairvoy, Site, backend, client, model_server, until};

const TOKEN: &str = "correct horse battery staple";
const TOKEN_OF_A: &str = "another long enough secret";

async fn lease(clairvoy: &Clairvoy, pool: &str, address: SocketAddr, lease: &str) -> StatusCode {
    let body = json!({ "address": address.to_string(), "lease": lease });
    let request = clairvoy.request(Method::PUT, &format!("/api/v1/pools/{pool}/backends")).json(&body);
    request.send().await.unwrap().status()
}

fn one_pool() -> Site {
    let site = Site::new();
    site.configure(
        "balance: { drain_time: 1s }\nmodels:\n  - { name: chat, pools: [a] }\npools:\n  - { name: a }\n",
    );
    site
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_not_renewed_ends_and_the_last_backend_stays() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let [renewed, forgotten] = servers.each_ref().map(SimulatedServer::address);
    let site = one_pool();
    let clairvoy = site.serve().await;
    assert_eq!(lease(&clairvoy, "a", renewed, "3s").await, StatusCode::CREATED);
    assert_eq!(lease(&clairvoy, "a", forgotten, "3s").await, StatusCode::CREATED);
    assert_eq!(lease(&clairvoy, "a", renewed, "3s").await, StatusCode::OK, "a renewal");
    until("it is listed with its lease", 30, async || {
        let answer = clairvoy.request(Method::GET, "/api/v1/pools/a/backends").send().await.unwrap();
        let list: Value = answer.json().await.unwrap();
        let first = &list["backends"][0];
        let left = first["lease_remaining_seconds"].as_f64().unwrap_or(-1.0);
        let known = first["origin"] == "registered" && first["lease_seconds"] == 3.0;
        if known && (0.0..=3.0).contains(&left) { Ok(()) } else { Err(list.to_string()) }
    })
    .await;
    until("the one that is not renewed is gone", 30, async || {
        assert_eq!(lease(&clairvoy, "a", renewed, "3s").await, StatusCode::OK);
        let state = clairvoy.state().await?;
        assert!(backend(&state, renewed).is_some());
        if backend(&state, forgotten).is_none() { Ok(()) } else { Err(format!("{state:#?}")) }
    })
    .await;
    let overdue = |state: &clairvoy::view::State| {
        state.pools[0].discovery.as_ref().is_some_and(|discovery| discovery.stale)
    };
    let state = clairvoy.state_where("the last one is overdue", overdue).await;
    assert_eq!(state.backends.len(), 1);
    clairvoy.event("would have no backend without it").await;
    assert!(clairvoy.metrics().await.contains("clairvoy_discovery_stale{pool=\"a\"} 1"));

    // After a restart the lease begins anew; the next one frees the pool of it.
    assert!(clairvoy.stop().success());
    let clairvoy = site.serve().await;
    let known = |state: &clairvoy::view::State| {
        backend(state, renewed).is_some_and(|backend| backend.lease_seconds == Some(3.0))
    };
    clairvoy.state_where("the lease is remembered", known).await;
    assert_eq!(lease(&clairvoy, "a", forgotten, "1h").await, StatusCode::CREATED);
    let left = |state: &clairvoy::view::State| {
        backend(state, renewed).is_none() && backend(state, forgotten).is_some() && !overdue(state)
    };
    clairvoy.state_where("the overdue one leaves", left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_backend_stays_drained_while_it_renews_its_lease() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let [first, second] = servers.each_ref().map(SimulatedServer::address);
    let site = one_pool();
    let clairvoy = site.serve().await;
    for address in [first, second] {
        assert_eq!(lease(&clairvoy, "a", address, "1m").await, StatusCode::CREATED);
    }
    assert_eq!(clairvoy.drain("a", first).await, StatusCode::ACCEPTED);
    assert_eq!(lease(&clairvoy, "a", first, "1m").await, StatusCode::OK);
    let draining = |state: &clairvoy::view::State| {
        backend(state, first).is_some_and(|one| one.state == clairvoy::view::BackendState::Draining)
    };
    clairvoy.state_where("it drains", draining).await;
    assert_eq!(clairvoy.remove("a", first).await, StatusCode::ACCEPTED);
    clairvoy.state_where("it has left", |state| backend(state, first).is_none()).await;
    assert_eq!(lease(&clairvoy, "a", first, "1m").await, StatusCode::CREATED, "and is welcome again");
    assert_eq!(lease(&clairvoy, "a", first, "1ms").await, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_addresses_of_the_pools_networks_are_registered() {
    let site = Site::new();
    site.configure(
        "models:\n  - { name: chat, pools: [a] }\n\
         pools:\n  - { name: a, allowed_networks: [127.0.0.0/8, 10.0.0.0/8] }\n",
    );
    let clairvoy = site.serve().await;
    for (body, status) in [
        (json!({"address": "10.1.2.3:8000"}), StatusCode::CREATED),
        (json!({"address": "192.168.1.2:8000"}), StatusCode::FORBIDDEN),
        (json!({"address": "169.254.169.254:80", "lease": "30s"}), StatusCode::FORBIDDEN),
    ] {
        let request = clairvoy.request(Method::POST, "/api/v1/pools/a/backends").json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{body}");
        if status == StatusCode::FORBIDDEN {
            let said: Value = answer.json().await.unwrap();
            let message = said["error"]["message"].as_str().unwrap();
            assert!(message.contains("add its network to `allowed_networks`"), "{said}");
        }
    }
    clairvoy.event("192.168.1.2:8000 lies outside").await;
    let metrics = clairvoy.metrics().await;
    assert!(
        metrics.contains("clairvoy_discovery_refused_total{pool=\"a\",origin=\"registered\"} 2"),
        "{metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_a_pool_is_good_for_its_backends_only() {
    let mut site = Site::new();
    site.listen_keys = "token_env: FLEET_TOKEN, tokens: [{ token_env: TOKEN_OF_A, pools: [a] }]";
    site.set("FLEET_TOKEN", TOKEN);
    site.set("TOKEN_OF_A", TOKEN_OF_A);
    site.configure("models:\n  - { name: chat, pools: [a, b] }\npools:\n  - { name: a }\n  - { name: b }\n");
    let clairvoy = site.serve().await.with_token(TOKEN);
    let body = json!({ "address": "127.0.0.1:9", "lease": "30s" });
    let status = async |method: Method, path: &str, token: &str| {
        let url = format!("http://{}{path}", site.api);
        let request = client().request(method, url).bearer_auth(token).json(&body);
        request.send().await.unwrap().status()
    };
    let backends = |pool: &str| format!("/api/v1/pools/{pool}/backends");
    assert_eq!(status(Method::PUT, &backends("a"), TOKEN_OF_A).await, StatusCode::CREATED);
    assert_eq!(status(Method::GET, &backends("a"), TOKEN_OF_A).await, StatusCode::OK);
    for (method, path) in [
        (Method::PUT, backends("b")),
        (Method::PUT, backends("%61")),
        (Method::GET, "/api/v1/state".to_owned()),
        (Method::DELETE, format!("{}/127.0.0.1:9", backends("b"))),
        (Method::GET, "/metrics".to_owned()),
    ] {
        assert_eq!(status(method, &path, TOKEN_OF_A).await, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(status(Method::PUT, &backends("b"), TOKEN).await, StatusCode::CONFLICT, "it belongs to a");
    assert_eq!(
        status(Method::PUT, &backends("a"), "neither of the two tokens").await,
        StatusCode::UNAUTHORIZED
    );
    let registered = clairvoy.state_where("it is there", |state| !state.backends.is_empty()).await;
    assert_eq!(registered.backends.len(), 1, "and nothing else");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registrations_have_bounds_and_are_counted() {
    let site = Site::new();
    site.configure("models:\n  - { name: chat, pools: [a] }\npools:\n  - { name: a, max_registered: 1 }\n");
    let clairvoy = site.serve().await;
    let first: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let second: SocketAddr = "127.0.0.2:9".parse().unwrap();
    assert_eq!(lease(&clairvoy, "a", first, "1h").await, StatusCode::CREATED);
    assert_eq!(lease(&clairvoy, "a", first, "1h").await, StatusCode::OK);
    assert_eq!(lease(&clairvoy, "a", second, "1h").await, StatusCode::CONFLICT);
    assert_eq!(lease(&clairvoy, "a", "8.8.8.8:53".parse().unwrap(), "1h").await, StatusCode::FORBIDDEN);
    assert_eq!(lease(&clairvoy, "nowhere", second, "1h").await, StatusCode::NOT_FOUND);
    assert_eq!(lease(&clairvoy, "a", second, "1000days").await, StatusCode::BAD_REQUEST);
    let body = json!({ "address": "x".repeat(70_000) });
    let large = clairvoy.request(Method::PUT, "/api/v1/pools/a/backends").json(&body);
    assert_eq!(large.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let metrics = clairvoy.metrics().await;
    for (pool, outcome, count) in [
        ("a", "new", 1),
        ("a", "renewed", 1),
        ("a", "full", 1),
        ("a", "not_allowed", 1),
        ("a", "malformed", 2),
        ("", "not_found", 1),
    ] {
        let line = format!("clairvoy_registrations_total{{pool=\"{pool}\",outcome=\"{outcome}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} is missing in:\n{metrics}");
    }
    clairvoy.event("max_registered").await;
}
