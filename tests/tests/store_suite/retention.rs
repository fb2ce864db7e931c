use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clairvoy::store::{
    AcknowledgementRow, DecisionRow, DemandRow, EventLevel, EventRow, Retention, Store, TelemetryWriter,
    WriterSettings,
};
use serde_json::json;
use sqlx::types::Uuid;
use tokio_util::sync::CancellationToken;

use crate::support::{SharedServer, count_samples, eventually, sample};

async fn partitions(store: &Store) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'backend_sample'::regclass ORDER BY 1",
    )
    .fetch_all(store.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn partitions_come_ahead_of_time_and_go_with_retention() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = Utc::now();
    let retention = Retention { samples_days: 2, ..Retention::default() };
    let name = |days: i64| (now + TimeDelta::days(days)).format("backend_sample_%Y%m%d").to_string();
    let report = store.maintain(now, &retention).await.unwrap();
    // Three days of four tables, and for three tables this month, and the next one if it begins within two days.
    assert!([15, 18].contains(&report.partitions_created), "{report:?}");
    assert_eq!(report.partitions_dropped, 0);
    assert_eq!(partitions(&store).await, [name(0), name(1), name(2)]);
    assert_eq!(store.maintain(now, &retention).await.unwrap(), Default::default(), "nothing to do twice");

    let writer = TelemetryWriter::spawn(&store, WriterSettings::default());
    writer.record([-3, -2, 0].map(|days| sample("a:1", now + TimeDelta::days(days))));
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!(partitions(&store).await.len(), 5, "the writer makes what it needs");
    let report = store.maintain(now, &retention).await.unwrap();
    assert_eq!(report.partitions_dropped, 1, "of samples");
    assert_eq!(partitions(&store).await, [name(-2), name(0), name(1), name(2)]);
    assert_eq!(count_samples(&store).await, 2);
    assert_eq!(store.telemetry_rows().await.unwrap(), 3, "the total counts what is gone");
}

#[tokio::test]
async fn hours_are_kept_by_month() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = "2026-03-20T12:00:00Z".parse().unwrap();
    let retention = Retention { hours_days: 60, ..Retention::default() };
    for day in ["2026-01-31", "2026-01-01", "2025-12-31"] {
        sqlx::query("SELECT create_month_partition('backend_hour', $1::date)")
            .bind(day.parse::<chrono::NaiveDate>().unwrap())
            .execute(store.pool())
            .await
            .unwrap();
    }
    store.maintain(now, &retention).await.unwrap();
    let months: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'backend_hour'::regclass ORDER BY 1",
    )
    .fetch_all(store.pool())
    .await
    .unwrap();
    assert_eq!(months, ["backend_hour_202601", "backend_hour_202603"], "60 days reach into January");
}

fn acknowledgement(decision: u128, at: DateTime<Utc>) -> AcknowledgementRow {
    AcknowledgementRow {
        decision_id: Uuid::from_u128(decision),
        published_at: at,
        envoys: 1,
        accepted: 1,
        refused: 0,
        gone: 0,
        first_seconds: Some(0.1),
        last_seconds: Some(0.1),
        refusals: Vec::new(),
    }
}

#[tokio::test]
async fn old_rows_go_and_imported_history_stays() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = Utc::now();
    for days in [0, 100] {
        let at = now - TimeDelta::days(days);
        let event = EventRow { at, level: EventLevel::Warning, message: format!("{days} days ago") };
        store.put_event(&event).await.unwrap();
        let acknowledgement = acknowledgement(u128::try_from(days).unwrap(), at);
        store.put_acknowledgements(&[acknowledgement]).await.unwrap();
    }
    let history = DemandRow { model: "m".into(), at: now - TimeDelta::days(3_000), requests_per_second: 1.0 };
    store.put_demand(10, std::slice::from_ref(&history)).await.unwrap();
    sqlx::query("INSERT INTO ingest_mark SELECT gen_random_uuid(), 9, 7, $1 FROM generate_series(1, 3)")
        .bind(now - TimeDelta::days(30))
        .execute(store.pool())
        .await
        .unwrap();
    let report = store.maintain(now, &Retention::default()).await.unwrap();
    assert_eq!(report.rows_removed, 2);
    let kept = store.acknowledgements(&[Uuid::from_u128(0), Uuid::from_u128(100)]).await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(store.events(10).await.unwrap().len(), 1);
    assert_eq!(store.demand("m", 10, history.at, now).await.unwrap().len(), 1);
    assert_eq!(store.telemetry_rows().await.unwrap(), 21);
    let marks: i64 =
        sqlx::query_scalar("SELECT count(*) FROM ingest_mark").fetch_one(store.pool()).await.unwrap();
    assert_eq!(marks, 1);
}

#[tokio::test]
async fn decisions_stay_at_any_age_while_they_are_in_force() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = Utc::now();
    let before = |days: i64| now - TimeDelta::days(days);
    let about = [
        ("weights", json!({})),
        ("membership", json!({ "part": "zones", "zones": {} })),
        ("membership", json!({ "part": "spare" })),
        ("shed", json!({})),
        ("canary", json!({})),
    ];
    // Of `quiet` nothing is newer, and of `busy` something is.
    let decided = [("quiet", 300), ("quiet", 200), ("busy", 100), ("busy", 90), ("busy", 10)];
    let mut number = 0;
    for (model, days) in decided {
        for (kind, inputs) in &about {
            number += 1;
            let row = DecisionRow {
                id: Uuid::from_u128(number),
                at: before(days),
                kind: (*kind).to_owned(),
                model: model.to_owned(),
                pool: None,
                summary: String::new(),
                inputs: inputs.clone(),
                changes: json!([]),
            };
            store.put_decision(&row).await.unwrap();
            store.put_acknowledgements(&[acknowledgement(number, row.at)]).await.unwrap();
        }
    }
    let report = store.maintain(now, &Retention::default()).await.unwrap();
    assert_eq!(report.rows_removed, 20, "ten decisions, and what Envoys said to them");
    let in_force = async |model, at| {
        let rows = [
            store.shares_in_force(model, at).await,
            store.zones_in_force(model, at).await,
            store.spare_in_force(model, at).await,
            store.shedding_in_force(model, at).await,
            store.canary_in_force(model, at).await,
        ];
        rows.map(|row| row.unwrap().map(|row| row.id.as_u128()))
    };
    assert_eq!(in_force("quiet", now).await, [6_u128, 7, 8, 9, 10].map(Some));
    assert_eq!(in_force("quiet", before(250)).await, [None; 5], "what is not in force any more is gone");
    assert_eq!(in_force("busy", now).await, [21_u128, 22, 23, 24, 25].map(Some));
    assert_eq!(
        in_force("busy", before(20)).await,
        [16_u128, 17, 18, 19, 20].map(Some),
        "in the time that is kept"
    );
    let all: Vec<Uuid> = (1..=25).map(Uuid::from_u128).collect();
    let mut told: Vec<u128> =
        store.acknowledgements(&all).await.unwrap().iter().map(|row| row.decision_id.as_u128()).collect();
    told.sort_unstable();
    assert_eq!(told, [6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
    let again = store.maintain(now, &Retention::default()).await.unwrap();
    assert_eq!(again.rows_removed, 0);
}

#[tokio::test]
async fn maintenance_runs_by_itself_until_stopped() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move { store.run_maintenance(Retention::default(), stop).await }
    });
    eventually("partitions are there", || async { partitions(&store).await.len() == 3 }).await;
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn models_of_backends_that_are_gone_go_soon() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = Utc::now();
    for (address, days) in [("here:1", 0), ("away:1", 10), ("gone:1", 20)] {
        sqlx::query("INSERT INTO backend (address, last_seen_at) VALUES ($1, $2)")
            .bind(address)
            .bind(now - TimeDelta::days(days))
            .execute(store.pool())
            .await
            .unwrap();
        let at = now - TimeDelta::days(days.max(15));
        for kind in ["wait", "demand"] {
            store.save_model_state(kind, address, at, &serde_json::json!(1)).await.unwrap();
        }
    }
    store.maintain(now, &Retention::default()).await.unwrap();
    let keys = async |kind, keys: Option<&[String]>| -> Vec<String> {
        store.newest_model_states(kind, keys).await.unwrap().into_keys().collect()
    };
    assert_eq!(keys("wait", None).await, ["away:1", "here:1"]);
    assert_eq!(keys("wait", Some(&["here:1".to_owned(), "new:1".to_owned()])).await, ["here:1"]);
    assert_eq!(keys("demand", None).await.len(), 3, "others have their own time");
}

#[tokio::test]
async fn what_is_saved_only_when_it_changes_stays_at_any_age() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = Utc::now();
    for (kind, version) in
        [("membership", 1), ("membership", 2), ("weights", 1), ("canary", 1), ("demand", 1)]
    {
        let at = now - TimeDelta::days(1000 - version);
        store.save_model_state(kind, "p", at, &serde_json::json!(version)).await.unwrap();
    }
    store.maintain(now, &Retention::default()).await.unwrap();
    let newest = async |kind| store.load_model_state(kind, "p").await.unwrap().map(|saved| saved.version);
    assert_eq!(newest("membership").await, Some(2));
    assert_eq!(newest("weights").await, Some(1));
    assert_eq!(newest("canary").await, Some(1));
    assert_eq!(newest("demand").await, None);
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM model_state").fetch_one(store.pool()).await.unwrap();
    assert_eq!(left, 3, "the older version of the membership is gone");
}

#[tokio::test]
async fn a_clock_that_is_ahead_removes_nothing() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let now = Utc::now();
    let event = EventRow { at: now, level: EventLevel::Warning, message: "today".into() };
    store.put_event(&event).await.unwrap();
    store.maintain(now, &Retention::default()).await.unwrap();
    let report = store.maintain(now + TimeDelta::days(400), &Retention::default()).await.unwrap();
    assert_eq!((report.partitions_dropped, report.rows_removed), (0, 0));
    assert_eq!(store.events(10).await.unwrap().len(), 1);
}
