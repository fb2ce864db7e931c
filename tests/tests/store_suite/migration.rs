//! From the version before: its rows become hours, and it goes on writing beside the new one.

use std::ffi::OsStr;
use std::path::Path;

use clairvoy::store::Store;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

use crate::support::{SharedServer, external, today};

/// The oldest version that knew minutes: from it and from each one since, the way to the present one is gone here.
const OLDEST: i64 = 5;

#[tokio::test]
async fn rows_of_older_versions_become_hours_and_those_go_on_writing() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let versions = std::fs::read_dir(all).unwrap().flatten().map(|entry| version(&entry.file_name()));
    let newest = versions.max().unwrap();
    for before in OLDEST..newest {
        beside_the_present_one(before).await;
    }
}

fn version(file_name: &OsStr) -> i64 {
    file_name.to_str().unwrap().split('_').next().unwrap().parse().unwrap()
}

/// A version before this one leaves rows, and goes on writing while the present one works.
async fn beside_the_present_one(before: i64) {
    let server = SharedServer::get().await;
    let url = server.url(&server.database().await);
    let mut old = PgConnection::connect(&url).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    for entry in std::fs::read_dir(all).unwrap().flatten() {
        if version(&entry.file_name()) <= before {
            std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
    }
    Migrator::new(dir.path()).await.unwrap().run(&mut old).await.unwrap();
    for statement in [
        "INSERT INTO backend (address, pool, model) VALUES ('a:1', 'p', 'm')",
        "SELECT create_day_partition(t, ($1 AT TIME ZONE 'UTC')::date)
         FROM unnest(ARRAY['backend_minute', 'backend_sample']::regclass[]) AS t",
        OLD_MINUTE,
    ] {
        let query = sqlx::query(statement);
        let query = if statement.contains("$1") { query.bind(today(0)) } else { query };
        query.execute(&mut old).await.unwrap();
    }

    let store = Store::open(external(url)).await.unwrap();
    assert_eq!(store.roll_up_hours(today(9_000), 10).await.unwrap(), 1);
    assert_eq!(hours(&store).await, [(60, 300.0, 300.0)], "since version {before}");

    // Both run for a while when one replaces the other.
    sqlx::query(OLD_MINUTE).bind(today(120)).execute(&mut old).await.unwrap();
    assert_eq!(store.roll_up_hours(today(9_000), 10).await.unwrap(), 1);
    assert_eq!(hours(&store).await, [(120, 600.0, 600.0)], "beside version {before}");
    for statement in [OLD_SAMPLE, OLD_DIRTY] {
        sqlx::query(statement).bind(today(60)).execute(&mut old).await.unwrap();
    }
    assert_eq!(store.roll_up(today(600)).await.unwrap(), 1);
    let minutes = store.minutes(None, today(60), today(120), 9).await.unwrap();
    assert_eq!(
        (minutes[0].queue_depth_mean, minutes[0].ttft_p95_seconds, minutes[0].iterations),
        (Some(2.0), None, 0.0)
    );
}

/// Samples and arrivals of each hour: of its backend, and arrivals of its pool.
async fn hours(store: &Store) -> Vec<(i32, f64, f64)> {
    sqlx::query_as(
        "SELECT h.samples, h.arrived, g.arrived FROM backend_hour h JOIN group_hour g USING (hour)
         JOIN fleet_group f ON f.id = g.group_id AND f.kind = 'pool'",
    )
    .fetch_all(store.pool())
    .await
    .unwrap()
}

const OLD_MINUTE: &str = "
    INSERT INTO backend_minute (minute, backend_id, samples, covered_seconds, queue_depth_mean, ttft_count, arrived,
        completed, prompt_tokens, output_tokens)
    SELECT $1, id, 60, 60, 2, 300, 300, 300, 9000, 8000 FROM backend";

const OLD_SAMPLE: &str = "
    INSERT INTO backend_sample (at, backend_id, interval_seconds, queue_depth, running, kv_used, gpu_utilisation,
        ttft_seconds, ttft_count, inter_token_seconds, arrived, completed, prompt_tokens, output_tokens, simulated)
    SELECT $1, id, 1, 2, 8, 0.5, NULL, 0.25, 4, 0.125, 5, 4, 400, 800, false FROM backend";

const OLD_DIRTY: &str = "INSERT INTO dirty_minute (minute, rows) VALUES ($1, 1)";
