//! Ten minutes of everything at once, as fast as it is taken, with `CLAIRVOY_LONG=1`.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clairvoy_tests::SpeedClass;
use reqwest::StatusCode;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::support::{Chat, Clairvoy, Load, Site, free_address, keeping_client, model_server};

const LENGTH: Duration = Duration::from_secs(600);
/// Windows of what is learned fill up until here.
const WARM: Duration = Duration::from_secs(240);
const LOOK: Duration = Duration::from_secs(5);
const PUSHED: usize = 100;

/// What one look finds.
#[derive(Clone, Copy, Debug)]
struct Look {
    after: Duration,
    resident_kib: u64,
    /// Age of the newest row of the database, seconds.
    lag_seconds: f64,
    /// Age of the oldest of the backends' newest samples, seconds.
    age_seconds: f64,
}

/// Pushes as fast as it is answered: all backends in each request.
async fn flood(
    http: SocketAddr,
    backends: Arc<[SocketAddr]>,
    taken: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let client = keeping_client();
    let mut completed = 0_u64;
    while !stop.is_cancelled() {
        completed += 1;
        let values = backends.iter().enumerate().map(|(index, backend)| {
            json!({
                "backend": backend.to_string(), "queue_depth": (completed + index as u64) % 7, "running": 8,
                "kv_used": 0.4, "completed": completed, "prompt_tokens": 300 * completed,
                "output_tokens": 90 * completed, "ttft_sum_seconds": 0.2 * completed as f64, "ttft_count": completed,
            })
        });
        let body = serde_json::Value::Array(values.collect());
        match client.post(format!("http://{http}/api/v1/telemetry")).json(&body).send().await {
            Ok(answer) if answer.status() == StatusCode::OK => {
                taken.fetch_add(8 * backends.len() as u64, Ordering::Relaxed);
            }
            Ok(answer) if answer.status() == StatusCode::SERVICE_UNAVAILABLE => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn look(clairvoy: &Clairvoy, begun: Instant) -> Look {
    let state = clairvoy.state().await.unwrap();
    let ages = state.backends.iter().map(|backend| backend.telemetry_age_seconds.unwrap_or(f64::INFINITY));
    let mut database = clairvoy.database().await.unwrap();
    let lag_seconds = sqlx::query_scalar(
        "SELECT coalesce(extract(epoch FROM now() - max(at))::float8, 'infinity') FROM backend_sample",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", clairvoy.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kib = line.split_whitespace().next().unwrap().parse().unwrap();
    Look { after: begun.elapsed(), resident_kib, lag_seconds, age_seconds: ages.fold(0.0, f64::max) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_minutes_of_everything_grow_neither_memory_nor_lag() {
    if std::env::var_os("CLAIRVOY_LONG").is_none_or(|value| value != "1") {
        eprintln!("skipped: takes ten minutes; set CLAIRVOY_LONG=1");
        return;
    }
    let servers = [(); 4].map(|()| model_server("chat", SpeedClass::Fast));
    let scraped = servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ");
    let pushed: Arc<[SocketAddr]> = (0..PUSHED).map(|_| free_address()).collect();
    let list = pushed.iter().map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(", ");
    let http = free_address();
    let site = Site::new();
    site.configure(&format!(
        "telemetry: {{ push: {{ http: {http} }} }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\n  - {{ name: pushed, pools: [b] }}\n\
         pools:\n  - {{ name: a, backends: [{scraped}] }}\n  \
         - {{ name: b, telemetry: push, backends: [{list}] }}\n"
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    clairvoy.in_sync().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 20), 20.0);
    let (taken, stop, senders) = (Arc::<AtomicU64>::default(), CancellationToken::new(), TaskTracker::new());
    for _ in 0..2 {
        senders.spawn(flood(http, Arc::clone(&pushed), Arc::clone(&taken), stop.clone()));
    }
    let begun = Instant::now();
    let mut looks = Vec::new();
    let mut ticks = tokio::time::interval(LOOK);
    while begun.elapsed() < LENGTH {
        ticks.tick().await;
        looks.push(look(&clairvoy, begun).await);
        assert!(senders.len() == 2, "a sender ended");
    }
    stop.cancel();
    senders.close();
    senders.wait().await;
    load.end().await;

    let warm: Vec<Look> = looks.into_iter().filter(|look| look.after >= WARM).collect();
    let (first, last) = warm.split_at(warm.len() / 2);
    let of = |looks: &[Look], value: fn(&Look) -> f64| looks.iter().map(value).fold(0.0, f64::max);
    let values = taken.load(Ordering::Relaxed) as f64 / LENGTH.as_secs_f64();
    println!("{values:.0} values/s were pushed; first half {first:#?}, second half {last:#?}");
    let (before, after) =
        (of(first, |look| look.resident_kib as f64), of(last, |look| look.resident_kib as f64));
    assert!(after < 1.1 * before + 8_192.0, "memory grew from {before} to {after} KiB");
    for (what, value) in
        [("rows", (|look: &Look| look.lag_seconds) as fn(&Look) -> f64), ("state", |look| look.age_seconds)]
    {
        let (before, after) = (of(first, value), of(last, value));
        assert!(after < before + 1.0 && after < 5.0, "age of {what}: {before} s, then {after} s");
    }
    let totals = clairvoy.state().await.unwrap().totals;
    assert_eq!(totals.telemetry_dropped, 0, "{totals:?}");
}
