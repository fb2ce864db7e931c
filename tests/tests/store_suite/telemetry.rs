use std::time::Duration;

use chrono::TimeDelta;
use clairvoy::store::{BackendRow, Store, TelemetryWriter, WriterSettings};

use crate::proxy::Proxy;
use crate::support::{SharedServer, count_samples, eventually, external, sample, today};

fn quick() -> WriterSettings {
    WriterSettings { batch_time: Duration::from_millis(20), ..Default::default() }
}

/// Writes samples and returns when they are in the database.
async fn write(store: &Store, samples: Vec<clairvoy::telemetry::Sample>) {
    let writer = TelemetryWriter::spawn(store, quick());
    writer.record(samples);
    writer.shutdown(Duration::from_secs(20)).await;
    assert_eq!(writer.counters().rows_dropped(), 0, "{:?}", writer.counters().last_error());
}

#[tokio::test]
async fn samples_come_back_as_they_went_in() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let mut bare = sample("host-b:9002", today(1));
    (bare.queue_depth, bare.ttft_seconds, bare.inter_token_seconds) = (None, None, None);
    bare.at += TimeDelta::microseconds(123_456);
    let written = vec![sample("host-a:9001", today(0)), bare, sample("host-a:9001", today(2))];
    write(&store, written.clone()).await;
    assert_eq!(store.samples(None, today(0), today(10), 100).await.unwrap(), written);
    assert_eq!(store.samples(None, today(0), today(10), 1).await.unwrap(), written[2..], "the newest");
    assert_eq!(store.telemetry_rows().await.unwrap(), 3);

    let large = BackendRow { address: "host-a:9001".into(), pool: "p".into(), model: "large".into() };
    store.describe_backends(&[large]).await.unwrap();
    let of_model = store.samples(Some("large"), today(0), today(10), 100).await.unwrap();
    assert_eq!(of_model, [written[0].clone(), written[2].clone()]);
}

#[tokio::test]
async fn many_batches_are_flushed_on_shutdown() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let settings =
        WriterSettings { batch_rows: 1_000, batch_time: Duration::from_secs(60), ..Default::default() };
    let writer = TelemetryWriter::spawn(&store, settings);
    for backend in 0..20 {
        writer.record((0..525).map(|second| sample(&format!("10.0.0.{backend}:80"), today(second))));
    }
    writer.shutdown(Duration::from_secs(30)).await;
    assert_eq!((writer.counters().rows_written(), writer.counters().batches()), (10_500, 11));
    assert_eq!(count_samples(&store).await, 10_500);
    writer.record([sample("10.0.0.1:80", today(0))]);
    assert_eq!(writer.counters().rows_dropped(), 1, "closed");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_not_repeated() {
    let server = SharedServer::get().await;
    let proxy = Proxy::start(&server.socket_dir()).await;
    let store = Store::open(external(proxy.url(&server.database().await))).await.unwrap();
    let writer = TelemetryWriter::spawn(&store, quick());
    proxy.lose_answers_to_commits(2);
    for batch in 0..3 {
        writer.record((0..50).map(|second| sample("a:1", today(batch * 50 + second))));
        let expected = (batch as u64 + 1) * 50;
        eventually("the batch is written", || async { writer.counters().rows_written() == expected }).await;
    }
    assert_eq!(proxy.commits_left_to_lose(), 0);
    assert!(writer.counters().failures() >= 2);
    assert_eq!(count_samples(&store).await, 150);
    assert_eq!(store.telemetry_rows().await.unwrap(), 150);
    writer.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn while_the_database_is_away_the_newest_samples_are_kept() {
    let server = SharedServer::get().await;
    let proxy = Proxy::start(&server.socket_dir()).await;
    let store = Store::open(external(proxy.url(&server.database().await))).await.unwrap();
    proxy.set_away(true);
    let writer =
        TelemetryWriter::spawn(&store, WriterSettings { queue_rows: 100, batch_rows: 10, ..quick() });
    let counters = writer.counters();
    writer.record((0..10).map(|second| sample("a:1", today(second))));
    eventually("an attempt fails", || async { counters.last_error().is_some() }).await;
    writer.record((10..500).map(|second| sample("a:1", today(second))));
    assert_eq!((writer.queued(), counters.rows_dropped()), (110, 390));

    proxy.set_away(false);
    eventually("the queue is written", || async { counters.rows_written() == 110 }).await;
    let samples = store.samples(None, today(0), today(500), 1_000).await.unwrap();
    let seconds: Vec<i64> = samples.iter().map(|sample| (sample.at - today(0)).num_seconds()).collect();
    assert_eq!(seconds, (0..10).chain(400..500).collect::<Vec<_>>(), "the batch at hand and the newest");
    writer.shutdown(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn samples_of_impossible_days_do_not_hold_up_others() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let writer = TelemetryWriter::spawn(&store, quick());
    let (old, ahead) = (today(0) - TimeDelta::days(30), today(0) + TimeDelta::days(3));
    writer.record([sample("a:1", old), sample("a:1", today(0)), sample("a:1", ahead)]);
    writer.shutdown(Duration::from_secs(10)).await;
    assert_eq!((writer.counters().rows_written(), writer.counters().rows_dropped()), (1, 2));
}

#[tokio::test]
async fn minutes_are_exact_whenever_their_samples_arrive() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let mut busy = sample("a:1", today(30));
    (busy.queue_depth, busy.ttft_seconds, busy.ttft_count) = (Some(10.0), Some(1.25), 1.0);
    (busy.inter_token_seconds, busy.output_tokens) = (Some(0.25), 200.0);
    (busy.ttft_p95_seconds, busy.kv_used_max, busy.preempted) = (Some(3.0), None, 0.0);
    write(&store, vec![sample("a:1", today(0)), busy, sample("b:2", today(59)), sample("a:1", today(60))])
        .await;
    assert_eq!(store.roll_up(today(119)).await.unwrap(), 1, "the second minute is not over");
    let minutes = store.minutes(None, today(0), today(600), 100).await.unwrap();
    assert_eq!(minutes.len(), 2);
    let first = &minutes[0];
    assert_eq!((first.address.as_str(), first.samples, first.covered_seconds), ("a:1", 2, 2.0));
    assert_eq!((first.queue_depth_mean, first.queue_depth_max), (Some(6.0), Some(10.0)));
    assert_eq!(first.ttft_seconds, Some((4.0 * 0.25 + 1.25) / 5.0));
    assert_eq!(first.inter_token_seconds, Some((800.0 * 0.125 + 200.0 * 0.25) / 1_000.0));
    assert_eq!(first.ttft_p95_seconds, Some((4.0 * 0.5 + 3.0) / 5.0), "weighted by requests");
    assert_eq!((first.ttft_p95_max_seconds, first.ttft_p50_seconds), (Some(3.0), Some(0.25)));
    assert_eq!((first.kv_used_mean, first.kv_used_max), (Some(0.5), Some(0.75)));
    assert_eq!((first.iterations, first.iteration_tokens, first.preempted), (80.0, 2_000.0, 1.0));
    assert_eq!((first.arrived, first.output_tokens, first.gpu_utilisation_mean), (10.0, 1_000.0, None));

    assert_eq!(store.roll_up(today(119)).await.unwrap(), 0, "nothing new");
    write(&store, vec![sample("a:1", today(45))]).await;
    assert_eq!(store.roll_up(today(200)).await.unwrap(), 2, "the late row's minute and the second one");
    let minutes = store.minutes(None, today(0), today(600), 100).await.unwrap();
    assert_eq!(minutes.iter().map(|minute| minute.samples).collect::<Vec<_>>(), [3, 1, 1]);
    assert_eq!(minutes[0].arrived, 15.0);

    sqlx::query("INSERT INTO dirty_minute VALUES ($1, 1)")
        .bind(today(0))
        .execute(store.pool())
        .await
        .unwrap();
    assert_eq!(store.roll_up(today(200)).await.unwrap(), 1);
    assert_eq!(
        store.minutes(None, today(0), today(600), 100).await.unwrap(),
        minutes,
        "computed again, the same"
    );
}
