//! Envoy refuses what it is told.

use std::net::TcpListener;

use clairvoy::view::ProxyState;
use clairvoy_tests::SpeedClass;

use crate::support::{Chat, Envoy, Site, free_address, model_server, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_shown_with_its_reason_and_ends_with_what_caused_it() {
    let server = model_server("chat", SpeedClass::Fast);
    let mut site = Site::new();
    let neighbour = TcpListener::bind(site.gateway).unwrap();
    let fleet = format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\"] }}\n",
        server.address()
    );
    site.configure(&fleet);
    let clairvoy = site.serve().await;
    let _envoy = Envoy::launch(&site, &[]).await;
    let state = clairvoy
        .state_where("the refusal is shown", |state| {
            state.proxies.iter().any(|proxy| proxy.state == ProxyState::Nacked)
        })
        .await;
    let nack = state.proxies[0].last_nack.as_ref().unwrap();
    let port = site.gateway.port().to_string();
    assert!(nack.message.contains(&port) && nack.resources == ["edge"], "{nack:?}");
    assert!(state.proxies[0].nacks < 5, "it is not sent again and again: {:?}", state.proxies[0]);
    assert!(clairvoy.metrics().await.contains("clairvoy_proxies{state=\"nacked\"} 1"));

    site.gateway = free_address();
    site.configure(&fleet);
    clairvoy.in_sync().await;
    let chat = Chat::new(site.gateway, "chat", 3);
    until("clients are served at the new address", 20, async || chat.stream().await.map(drop)).await;
    drop(neighbour);
}
