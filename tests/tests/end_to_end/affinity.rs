//! Requests that are alike stay with one backend: by a cookie that Envoy makes, and by the address that they come from.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use clairvoy::view::State;
use clairvoy_tests::{SimulatedServer, SpeedClass};
use reqwest::{RequestBuilder, StatusCode, header};

use crate::support::{Chat, Site, client_at, model_server};

/// So many have one and the same of three backends by chance about once in a thousand million runs.
const CLIENTS: u8 = 20;

/// The server that answers, and the cookie that comes with its answer.
async fn answered(request: RequestBuilder) -> (String, Option<String>) {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    let header = |name: &str| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
    (header("x-simulator-address").unwrap(), header("set-cookie"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_stays_with_its_backend_by_the_cookie_that_envoy_made_and_by_its_address() {
    let servers = ["cookie", "address"].map(|model| [(); 3].map(|()| model_server(model, SpeedClass::Fast)));
    let list = |servers: &[SimulatedServer; 3]| {
        servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ")
    };
    let site = Site::new();
    // Of configured capacities, so that weights stay as they are.
    site.configure(&format!(
        "models:\n  - {{ name: cookie, pools: [a], balance: {{ policy: ring_hash, hash_on: [{{ cookie: {{ name: sid, ttl: 1h }} }}] }} }}\n  \
         - {{ name: address, pools: [b], balance: {{ policy: maglev, hash_on: [source_ip] }} }}\n\
         pools:\n  - {{ name: a, capacity_rps: 100, backends: [{}] }}\n  - {{ name: b, capacity_rps: 100, backends: [{}] }}\n",
        list(&servers[0]),
        list(&servers[1]),
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let all_serve = |state: &State| state.backends.iter().all(|backend| backend.share > 0.0);
    clairvoy.state_where("all servers take requests", all_serve).await;
    clairvoy.in_sync().await;

    let chat = Chat::new(site.gateway, "cookie", 1);
    let mut taken = BTreeSet::new();
    for _ in 0..CLIENTS {
        let (server, cookie) = answered(chat.request()).await;
        let cookie = cookie.unwrap();
        let (pair, attributes) = cookie.split_once(';').unwrap();
        let is_as_configured = attributes.contains("Max-Age=3600") && attributes.contains("Path=/");
        assert!(pair.starts_with("sid=") && is_as_configured, "{cookie}");
        for _ in 0..3 {
            let again = answered(chat.request().header(header::COOKIE, pair)).await;
            assert_eq!(again, (server.clone(), None), "{cookie}");
        }
        taken.insert(server);
    }
    assert!(taken.len() > 1, "all have {taken:?}");

    let chat = Chat::new(site.gateway, "address", 1);
    let mut taken = BTreeSet::new();
    for number in 1..=CLIENTS {
        // All of 127.0.0.0/8 is this machine. Each request has a connection, and so a port, of its own.
        let client = client_at(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, number))));
        let ask = async || answered(client.post(chat.url()).json(&chat.body())).await;
        let (server, cookie) = ask().await;
        assert_eq!(cookie, None);
        for _ in 0..3 {
            assert_eq!(ask().await.0, server, "127.0.0.{number}");
        }
        taken.insert(server);
    }
    assert!(taken.len() > 1, "all have {taken:?}");
}
