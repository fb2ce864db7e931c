//! What is said of single backends: how much they can do, and when something is wrong with one.

use clairvoy::view::State;
use clairvoy_tests::{Faults, SpeedClass};

use crate::support::{Chat, Load, Site, backend, model_server, until};

/// The value of the series of one backend.
fn series(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let is_it = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    page.lines().find(is_it)?.rsplit_once(' ')?.1.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slowed_backend_is_named_with_the_reason_and_capacities_are_learned() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let slowed = servers[1].address();
    let site = Site::new();
    let list = servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ");
    // Five scrapes a second, so that what takes many of them is over soon.
    site.configure(&format!(
        "telemetry: {{ interval: 200ms, deadline: 200ms }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{list}] }}\n"
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 12.0);
    load.more(150).await;

    let state = clairvoy.state().await.unwrap();
    assert!(
        state
            .backends
            .iter()
            .all(|backend| backend.anomaly.as_ref().is_none_or(|found| found.kind.is_none())),
        "{:#?}",
        state.backends
    );
    servers[1].set_faults(Faults { slow_factor: 4.0, ..Faults::default() }).unwrap();
    clairvoy.event(&format!("{slowed} in pool a is anomalous (slower than peers)")).await;
    let state = clairvoy
        .state_where("the slowed one is shown as such", |state| {
            let found = backend(state, slowed).and_then(|backend| backend.anomaly.clone());
            found.is_some_and(|found| found.kind.as_deref() == Some("slower_than_peers"))
        })
        .await;
    let found = backend(&state, slowed).unwrap().anomaly.clone().unwrap();
    assert!(found.score >= 1.0, "{found:?}");
    assert!(found.reason.as_ref().unwrap().contains("its 2 peers take"), "{found:?}");
    let others = state.backends.iter().filter(|backend| backend.address != slowed.to_string());
    assert!(
        others.clone().all(|other| other.anomaly.as_ref().is_none_or(|found| found.kind.is_none())),
        "{others:#?}"
    );

    let own = format!("a/{slowed}");
    let is_apart = |state: &State| {
        let groups: Vec<&str> = state.models[0].shares.iter().map(|share| share.group.as_str()).collect();
        groups.contains(&"a")
            && groups.contains(&own.as_str())
            && backend(state, slowed).unwrap().group == own
    };
    clairvoy.state_where("it has a group of its own, as long as it is slow", is_apart).await;

    // A third of 12 requests/s each, and more on the healthy ones since: no more was tried.
    let state = clairvoy
        .state_where("the capacities are known as far as they were seen", |state| {
            // The slowed one gets too little to tell.
            let mut others = state.backends.iter().filter(|one| one.address != slowed.to_string());
            others.all(|backend| backend.capacity.is_some())
        })
        .await;
    let healthy = backend(&state, servers[0].address()).unwrap();
    let capacity = healthy.capacity.clone().unwrap();
    assert!(capacity.lower_rps.is_some_and(|rps| (2.5..9.0).contains(&rps)), "{capacity:?}");

    // Fast servers: 8 ms an iteration, and a fuller one for each request in it.
    let profile = healthy.profile.clone().unwrap();
    assert!((0.005..0.012).contains(&profile.fixed_seconds) && profile.observations > 50.0, "{profile:?}");
    assert!(profile.kv_tokens == Some(180_000.0) && profile.capacity_rps > 5.0, "{profile:?}");
    assert!(backend(&state, slowed).unwrap().slowdown > 2.0, "{:?}", backend(&state, slowed));
    assert!(is_apart(&state), "{:#?}", state.models[0].shares);

    let labels = |address: std::net::SocketAddr| format!("backend=\"{address}\"");
    until("the metrics tell of both", 10, async || {
        let page = clairvoy.metrics().await;
        let (slowed, healthy) = (labels(slowed), labels(servers[0].address()));
        let seen = (
            series(&page, "clairvoy_backend_anomalous{", &[&slowed]),
            series(&page, "clairvoy_backend_anomalous{", &[&healthy]),
            series(&page, "clairvoy_backend_anomaly_score{", &[&slowed]),
            series(&page, "clairvoy_backend_capacity_requests_per_second{", &[&healthy, "bound=\"lower\""]),
            series(&page, "clairvoy_backend_iteration_seconds{", &[&healthy, "part=\"fixed\""]),
        );
        match seen {
            (Some(1.0), Some(0.0), Some(score), Some(rps), Some(_)) if score > 0.5 && rps > 1.0 => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    })
    .await;
    load.end().await;
}
