//! Postgres, or Clairvoy around it, is killed. Steering goes on, and what was written stays.

use clairvoy_tests::SpeedClass;
use rustix::process::Signal;

use crate::support::{Chat, Clairvoy, Load, Site, model_server, processes_in, send_signal, until};

fn configure(site: &Site, backends: &[std::net::SocketAddr]) {
    let list: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
    site.configure(&format!(
        "telemetry: {{ interval: 200ms, deadline: 200ms }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{}] }}\n",
        list.join(", ")
    ));
}

async fn more_rows_than(clairvoy: &Clairvoy, before: i64) -> i64 {
    until(&format!("more than {before} rows"), 60, async || match clairvoy.rows().await {
        Ok(rows) if rows > before => Ok(rows),
        other => Err(format!("{other:?}")),
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetry_and_steering_go_on_after_the_database_was_killed() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let site = Site::new();
    configure(&site, &servers.each_ref().map(|server| server.address()));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 4.0);
    let rows = more_rows_than(&clairvoy, 20).await;

    let postmaster = clairvoy.postmaster();
    send_signal(postmaster, Signal::KILL);
    let seen = clairvoy.state().await.unwrap();
    let newer = |state: &clairvoy::view::State| {
        state.now > seen.now
            && state.backends.iter().all(|b| b.telemetry_age_seconds.is_some_and(|age| age < 2.0))
    };
    clairvoy.state_where("it goes on deciding", newer).await;
    load.more(5).await;

    more_rows_than(&clairvoy, rows + 20).await;
    assert_ne!(clairvoy.postmaster(), postmaster);
    let after = clairvoy.state().await.unwrap();
    assert_eq!(after.totals.telemetry_dropped, seen.totals.telemetry_dropped, "nothing was lost meanwhile");
    load.end().await;
    assert!(clairvoy.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clairvoy_leaves_no_postgres_behind_and_loses_no_row_that_was_written() {
    let server = model_server("chat", SpeedClass::Fast);
    let site = Site::new();
    configure(&site, &[server.address()]);
    let clairvoy = site.serve().await;
    let rows = more_rows_than(&clairvoy, 20).await;
    // Telemetry is committed without waiting for the disk, which follows within a second.
    let later = more_rows_than(&clairvoy, rows).await;
    more_rows_than(&clairvoy, later).await;
    let data = clairvoy.data_dir();
    assert!(!processes_in(&data).is_empty(), "there is a Postgres");

    clairvoy.kill();
    until("Postgres has ended, too", 20, async || match processes_in(&data) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;

    let clairvoy = site.serve().await;
    let found =
        until("the database is back", 30, async || clairvoy.rows().await.map_err(|e| e.to_string())).await;
    assert!(found >= rows, "{rows} rows were written, {found} are left");
    more_rows_than(&clairvoy, found).await;
}
