//! Model servers that tell rubbish, or nothing, or too much.

use std::fs;

use clairvoy::view::BackendState;
use clairvoy_tests::{Faults, SpeedClass};

use crate::support::{Chat, Load, Site, backend, holds_for, model_server, until};

/// Resident memory of a process, MiB.
fn memory_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// The value of a series of a metrics page.
fn series(page: &str, start: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| line.starts_with(start) && labels.iter().all(|label| line.contains(label));
    let values = page.lines().filter(is_it).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_with_bad_metrics_harms_no_other() {
    let servers = [(); 4].map(|()| model_server("chat", SpeedClass::Fast));
    let [good, garbage, silent, huge] = &servers;
    garbage.set_faults(Faults { metrics_garbage: true, ..Faults::default() }).unwrap();
    silent.set_faults(Faults { metrics_hang: true, ..Faults::default() }).unwrap();
    huge.set_faults(Faults { metrics_huge: true, ..Faults::default() }).unwrap();
    let site = Site::new();
    let list = servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ");
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{list}] }}\n"
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    clairvoy
        .state_where("the good one is ready", |state| {
            backend(state, good.address()).unwrap().state == BackendState::Ready
        })
        .await;
    let load = Load::start(Chat::new(site.gateway, "chat", 30), 3.0);
    let memory = memory_mib(clairvoy.pid());
    holds_for("the good one's telemetry is fresh", 6.0, async || {
        let state = clairvoy.state().await?;
        let good = backend(&state, good.address()).unwrap();
        let fresh = good.telemetry_age_seconds.is_some_and(|age| age < 5.0);
        if fresh && good.share > 0.0 { Ok(()) } else { Err(format!("{good:?}")) }
    })
    .await;

    until("what was wrong is counted", 30, async || {
        let page = clairvoy.metrics().await;
        let wanted = [
            series(&page, "clairvoy_telemetry_failures_total", &["kind=\"timeout\""]),
            series(&page, "clairvoy_telemetry_failures_total", &["kind=\"too_large\""]),
            series(&page, "clairvoy_telemetry_fields_dropped_total", &[]),
        ];
        if wanted.iter().all(|count| *count >= 3.0) { Ok(()) } else { Err(format!("{wanted:?}")) }
    })
    .await;
    let state = clairvoy.state().await.unwrap();
    for (server, words) in [(silent, "900"), (huge, "4194304")] {
        let view = backend(&state, server.address()).unwrap();
        assert!(view.reason.contains(words), "the reason says what is wrong: {view:?}");
    }
    let view = backend(&state, garbage.address()).unwrap();
    let believed = [view.queue_depth, view.running, view.kv_used, view.gpu_utilisation, view.ttft_seconds];
    let plausible = |value: &f64| value.is_finite() && (0.0..1e6).contains(value);
    assert!(believed.iter().flatten().all(plausible), "{view:?}");
    assert!(
        state.backends.iter().all(|backend| (0.0..=1.0).contains(&backend.share)),
        "{:#?}",
        state.backends
    );
    let grown = memory_mib(clairvoy.pid()).saturating_sub(memory);
    assert!(grown < 100, "{memory} MiB have grown by {grown}");
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_whose_metrics_are_out_of_reach_serve_all_the_same() {
    let server = model_server("chat", SpeedClass::Fast);
    server.set_faults(Faults { metrics_hang: true, ..Faults::default() }).unwrap();
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\"] }}\n",
        server.address()
    ));
    let _clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let chat = Chat::new(site.gateway, "chat", 5);
    until("it answers", 10, async || chat.stream().await.map(drop)).await;
}
