//! Backends that are found in DNS, and backends that register themselves for a time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clairvoy::view::State;
use clairvoy_tests::{SimulatedServer, SpeedClass};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use crate::support::{Chat, Dns, Load, Site, backend, model_server, until};

const NAME: &str = "_http._tcp.vllm.test.";

fn servers<const COUNT: usize>() -> ([SimulatedServer; COUNT], [SocketAddr; COUNT]) {
    let servers = [(); COUNT].map(|()| model_server("chat", SpeedClass::Fast));
    let addresses = servers.each_ref().map(SimulatedServer::address);
    (servers, addresses)
}

/// A site whose one pool is found by services in DNS.
fn found_in(dns: &Dns, hold: &str) -> Site {
    let site = Site::new();
    site.configure(&format!(
        "balance: {{ drain_time: 1s }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - name: a\n    discovery:\n      hold: {hold}\n      \
         dns: {{ name: {NAME}, type: srv, resolver: {}, refresh: {{ min: 100ms, max: 1s }}, timeout: 500ms }}\n",
        dns.address
    ));
    site
}

fn are(state: &State, expected: &[SocketAddr]) -> bool {
    state.backends.len() == expected.len() && expected.iter().all(|one| backend(state, one).is_some())
}

fn discovery(state: &State) -> (bool, bool) {
    let discovery = state.pools[0].discovery.as_ref();
    discovery.map_or((false, false), |discovery| (discovery.stale, discovery.holding))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_and_go_and_a_silent_or_empty_dns_takes_nothing_away() {
    let (_servers, [first, second, third]) = servers();
    let dns = Dns::start().await;
    dns.services(NAME, 0, &[first, second]);
    let site = found_in(&dns, "30s");
    let clairvoy = site.serve().await;
    let state = clairvoy.state_where("both are found", |state| are(state, &[first, second])).await;
    assert!(state.backends.iter().all(|backend| backend.origin == "dns"), "{:#?}", state.backends);
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 20), 5.0);
    load.more(5).await;

    dns.services(NAME, 0, &[first, second, third]);
    envoy.host_where("the newcomer serves", "chat", third, |host| host.is_some_and(|h| h.requests > 1)).await;
    dns.services(NAME, 0, &[second, third]);
    envoy.host_where("the first has left", "chat", first, |host| host.is_none()).await;
    clairvoy.state_where("it is gone", |state| are(state, &[second, third])).await;

    dns.services(NAME, 0, &[]);
    let stale = |state: &State| discovery(state).0 && are(state, &[second, third]);
    clairvoy.state_where("an empty answer is told", stale).await;
    clairvoy.event("keeps the 2 backends").await;
    assert!(clairvoy.metrics().await.contains("clairvoy_discovery_stale{pool=\"a\"} 1"));
    dns.services(NAME, 0, &[second, third]);
    clairvoy.state_where("it works again", |state| !discovery(state).0).await;
    for code in [ResponseCode::NXDomain, ResponseCode::ServFail] {
        dns.fail(Some(code));
        clairvoy.state_where("the failure is told", stale).await;
        dns.fail(None);
        clairvoy.state_where("it works again", |state| !discovery(state).0).await;
    }

    let address = dns.address;
    drop(dns);
    clairvoy.state_where("the dead server is told", stale).await;
    load.more(5).await;
    load.end().await;
    // A restart while DNS is away: what was found is still known.
    assert!(clairvoy.stop().success());
    let clairvoy = site.serve().await;
    clairvoy.state_where("the found ones are remembered", stale).await;
    assert_eq!(envoy.hosts("chat").await.len(), 2);
    let dns = Dns::start_at(address).await;
    dns.services(NAME, 0, &[first, second, third]);
    let all = |state: &State| !discovery(state).0 && are(state, &[first, second, third]);
    clairvoy.state_where("it goes on", all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn most_of_a_pool_gone_at_once_is_held() {
    let (_servers, [first, second, third]) = servers();
    let dns = Dns::start().await;
    dns.services(NAME, 0, &[first, second, third]);
    let site = found_in(&dns, "4s");
    let clairvoy = site.serve().await;
    clairvoy.state_where("all are found", |state| are(state, &[first, second, third])).await;
    dns.services(NAME, 0, &[first]);
    let held = clairvoy.state_where("they are held", |state| discovery(state).1).await;
    assert!(held.backends.iter().all(|one| one.state != clairvoy::view::BackendState::Draining));
    assert_eq!(held.backends.len(), 3);
    clairvoy.event("stay for 4s").await;
    let gone = clairvoy.state_where("they go", |state| are(state, &[first])).await;
    assert!((gone.now - held.now).num_seconds() >= 3, "held for a while");
    assert_eq!(discovery(&gone), (false, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_are_looked_up_again_when_their_time_is_over_and_not_before() {
    let (_servers, [server]) = servers();
    let dns = Dns::start().await;
    dns.addresses("vllm.test.", 2, &[Ipv4Addr::LOCALHOST, Ipv4Addr::new(8, 8, 8, 8)]);
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - name: a\n    discovery:\n      \
         dns: {{ name: vllm.test, type: a, port: {}, resolver: {}, refresh: {{ min: 100ms, max: 1h }} }}\n",
        server.port(),
        dns.address
    ));
    let clairvoy = site.serve().await;
    clairvoy.state_where("it is found", |state| are(state, &[server])).await;
    clairvoy.event("8.8.8.8").await;
    let metrics = clairvoy.metrics().await;
    assert!(metrics.contains("clairvoy_discovery_refused_total{pool=\"a\",origin=\"dns\"} 1"), "{metrics}");
    let asked = until("it is asked for four times", 30, async || {
        let asked = dns.asked(RecordType::A);
        if asked.len() >= 4 { Ok(asked) } else { Err(format!("{asked:?}")) }
    })
    .await;
    for pair in asked.windows(2) {
        let apart = pair[1] - pair[0];
        assert!(apart >= Duration::from_millis(1990), "asked again after {apart:?}");
    }
}
