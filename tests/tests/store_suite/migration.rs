//! From the version before: its rows become hours, and it goes on writing beside the new one.

use std::path::Path;

use clairvoy::store::Store;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};

use crate::support::{SharedServer, external, today};

/// Migrations of the version before.
const BEFORE: i64 = 5;

#[tokio::test]
async fn rows_of_the_version_before_become_hours_and_it_goes_on_writing() {
    let server = SharedServer::get().await;
    let url = server.url(&server.database().await);
    let mut old = PgConnection::connect(&url).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    for entry in std::fs::read_dir(all).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.split('_').next().unwrap().parse::<i64>().unwrap() <= BEFORE {
            std::fs::copy(entry.path(), dir.path().join(name)).unwrap();
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
    let hours: Vec<(i32, f64, f64)> = sqlx::query_as(
        "SELECT h.samples, h.arrived, g.arrived FROM backend_hour h JOIN group_hour g USING (hour)
         JOIN fleet_group f ON f.id = g.group_id AND f.kind = 'pool'",
    )
    .fetch_all(store.pool())
    .await
    .unwrap();
    assert_eq!(hours, [(60, 300.0, 300.0)]);

    // Both run for a while when one replaces the other.
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

const OLD_MINUTE: &str = "
    INSERT INTO backend_minute (minute, backend_id, samples, covered_seconds, queue_depth_mean, ttft_count, arrived,
        completed, prompt_tokens, output_tokens)
    SELECT $1, id, 60, 60, 2, 300, 300, 300, 9000, 8000 FROM backend";

const OLD_SAMPLE: &str = "
    INSERT INTO backend_sample (at, backend_id, interval_seconds, queue_depth, running, kv_used, gpu_utilisation,
        ttft_seconds, ttft_count, inter_token_seconds, arrived, completed, prompt_tokens, output_tokens, simulated)
    SELECT $1, id, 1, 2, 8, 0.5, NULL, 0.25, 4, 0.125, 5, 4, 400, 800, false FROM backend";

const OLD_DIRTY: &str = "INSERT INTO dirty_minute (minute, rows) VALUES ($1, 1)";
