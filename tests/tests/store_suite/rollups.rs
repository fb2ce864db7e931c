//! Minutes and hours of backends, pools and models, and the charts made of them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clairvoy::store::{
    BackendRow, Metric, Retention, Source, Store, Subject, TelemetryWriter, WriterSettings,
};
use clairvoy::telemetry::Sample;

use crate::support::{SharedServer, sample, today};

async fn write(store: &Store, samples: Vec<Sample>) {
    let settings = WriterSettings { batch_time: Duration::from_millis(20), ..Default::default() };
    let writer = TelemetryWriter::spawn(store, settings);
    writer.record(samples);
    writer.shutdown(Duration::from_secs(20)).await;
    assert_eq!(writer.counters().rows_dropped(), 0, "{:?}", writer.counters().last_error());
}

async fn describe(store: &Store) {
    let row = |address: &str, pool: &str| BackendRow {
        address: address.into(),
        pool: pool.into(),
        model: "large".into(),
    };
    store.describe_backends(&[row("a:1", "p"), row("b:1", "p"), row("c:1", "q")]).await.unwrap();
}

/// A sample with a queue that has one place for each second of its age.
fn queue(backend: &str, second: i64, depth: f64) -> Sample {
    Sample { queue_depth: Some(depth), ..sample(backend, today(second)) }
}

async fn chart(
    store: &Store,
    subject: Subject,
    metric: Metric,
    span: (i64, i64),
) -> (Source, Vec<(i64, f64)>) {
    // Far enough from the data that all its hours are whole.
    let now = today(0) + TimeDelta::hours(6);
    let window = (today(span.0), today(span.1));
    let history = store.history(&subject, metric, window, &Retention::default(), now).await.unwrap().unwrap();
    let since = |at: DateTime<Utc>| (at - today(0)).num_seconds();
    (history.source, history.points.iter().map(|point| (since(point.at), point.value)).collect())
}

#[tokio::test]
async fn hours_are_exact_whenever_their_minutes_arrive() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    describe(&store).await;
    let backends = ["a:1", "b:1", "c:1"];
    // Of each backend a sample in three minutes of the first hour and in one of the second.
    let samples = [0, 60, 120, 3_600].iter().flat_map(|second| {
        backends.iter().enumerate().map(move |(n, backend)| queue(backend, *second, n as f64 + 1.0))
    });
    write(&store, samples.collect()).await;
    assert_eq!(store.roll_up(today(9_000)).await.unwrap(), 4);
    assert_eq!(store.roll_up_hours(today(3_600 + 80), 9).await.unwrap(), 0, "not settled yet");
    assert_eq!(store.roll_up_hours(today(3_600 + 95), 9).await.unwrap(), 1);
    assert_eq!(store.roll_up_hours(today(9_000), 9).await.unwrap(), 1);
    let hour = |address: &'static str| {
        let store = store.clone();
        async move {
            let row: (i32, f64, f64, f64, f64, f64) = sqlx::query_as(
                "SELECT h.samples, h.covered_seconds, h.queue_depth_mean, h.arrived, h.ttft_p95_seconds,
                        h.iterations
                 FROM backend_hour h JOIN backend b ON b.id = h.backend_id WHERE b.address = $1 AND h.hour = $2",
            )
            .bind(address)
            .bind(today(0))
            .fetch_one(store.pool())
            .await
            .unwrap();
            row
        }
    };
    assert_eq!(hour("b:1").await, (3, 3.0, 2.0, 15.0, 0.5, 120.0));

    // A late sample: its minute, and with it its hour and the groups.
    write(&store, vec![queue("b:1", 200, 8.0)]).await;
    assert_eq!(store.roll_up(today(9_000)).await.unwrap(), 1);
    assert_eq!(store.roll_up_hours(today(9_000), 9).await.unwrap(), 1);
    assert_eq!(hour("b:1").await, (4, 4.0, 3.5, 20.0, 0.5, 160.0));
    assert_eq!(store.roll_up_hours(today(9_000), 9).await.unwrap(), 0, "nothing new");

    let groups: Vec<(String, String, i32, f64, f64)> = sqlx::query_as(
        "SELECT g.kind, g.name, h.backends, h.arrived, h.queue_depth_max FROM group_hour h
         JOIN fleet_group g ON g.id = h.group_id WHERE h.hour = $1 ORDER BY 1, 2",
    )
    .bind(today(0))
    .fetch_all(store.pool())
    .await
    .unwrap();
    let expected =
        [("model", "large", 3, 50.0, 8.0), ("pool", "p", 2, 35.0, 8.0), ("pool", "q", 1, 15.0, 3.0)];
    let expected = expected.map(|(kind, name, backends, arrived, depth)| {
        (kind.to_owned(), name.to_owned(), backends, arrived, depth)
    });
    assert_eq!(groups, expected);
}

#[tokio::test]
async fn minutes_of_the_version_before_get_groups_and_hours() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    describe(&store).await;
    write(&store, vec![queue("a:1", 0, 2.0), queue("b:1", 1, 3.0)]).await;
    store.roll_up(today(200)).await.unwrap();
    // As if that version had rolled up: it knows neither groups nor hours.
    for statement in ["DELETE FROM group_minute", "DELETE FROM fleet_group", "DELETE FROM dirty_hour"] {
        sqlx::query(statement).execute(store.pool()).await.unwrap();
    }
    write(&store, vec![queue("a:1", 60, 4.0)]).await;
    store.roll_up(today(200)).await.unwrap();
    assert_eq!(store.roll_up_hours(today(9_000), 9).await.unwrap(), 1);
    let (_, points) = chart(&store, Subject::Pool("p".into()), Metric::QueueDepth, (0, 1_800)).await;
    assert_eq!(points, [(0, 5.0), (60, 4.0)]);
}

#[tokio::test]
async fn charts_come_from_the_rows_that_suit_their_length() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    describe(&store).await;
    let samples = (0..7_200).step_by(10).flat_map(|second| {
        let depth = f64::from(u32::try_from(second / 3_600).unwrap() + 1);
        ["a:1", "b:1"].map(|backend| Sample { interval_seconds: 10.0, ..queue(backend, second, depth) })
    });
    write(&store, samples.collect()).await;
    store.roll_up(today(9_000)).await.unwrap();
    store.roll_up_hours(today(9_000), 9).await.unwrap();
    let (pool, backend) = (Subject::Pool("p".into()), Subject::Backend("a:1".into()));

    let (source, points) = chart(&store, backend.clone(), Metric::QueueDepth, (0, 40)).await;
    assert_eq!((source, points), (Source::Raw, vec![(0, 1.0), (10, 1.0), (20, 1.0), (30, 1.0)]));
    let (source, points) = chart(&store, pool.clone(), Metric::QueueDepth, (0, 30)).await;
    assert_eq!((source, points), (Source::Raw, vec![(0, 2.0), (10, 2.0), (20, 2.0)]), "the sum of both");
    let (source, points) = chart(&store, pool.clone(), Metric::ArrivedPerSecond, (0, 20)).await;
    assert_eq!((source, points), (Source::Raw, vec![(0, 1.0), (10, 1.0)]));

    let (source, points) = chart(&store, pool.clone(), Metric::QueueDepth, (0, 7_200)).await;
    assert_eq!((source, points.len()), (Source::Minutes, 120));
    assert_eq!((points[0], points[119]), ((0, 2.0), (7_140, 4.0)));
    let (source, points) = chart(&store, pool.clone(), Metric::ArrivedPerSecond, (0, 7_200)).await;
    assert_eq!((source, points[60]), (Source::Minutes, (3_600, 1.0)));

    let week = 14 * 86_400;
    for (subject, expected) in [(backend, [1.0, 2.0]), (pool, [2.0, 4.0])] {
        let (source, points) = chart(&store, subject, Metric::QueueDepth, (7_200 - week, 7_200)).await;
        assert_eq!((source, points), (Source::Hours, vec![(0, expected[0]), (3_600, expected[1])]));
    }
    // A chart that begins within an hour or a minute begins with that one.
    let hours_only = Retention { samples_days: 0, minutes_days: 0, ..Retention::default() };
    let metric = Metric::QueueDepth;
    let model = Subject::Model("large".into());
    for (span, retention, expected) in [
        ((600, 1_800), hours_only, vec![2.0]),
        ((1_800, 7_000), hours_only, vec![2.0, 4.0]),
        ((30, 3_630), Retention::default(), [vec![2.0; 60], vec![4.0]].concat()),
    ] {
        let window = (today(span.0), today(span.1));
        let found = store.history(&model, metric, window, &retention, today(0) + TimeDelta::hours(6)).await;
        let values: Vec<f64> = found.unwrap().unwrap().points.iter().map(|point| point.value).collect();
        assert_eq!(values, expected, "{span:?}");
    }
    for metric in
        [Metric::TtftP95Seconds, Metric::TokensPerIteration, Metric::KvUsed, Metric::QueueWaitSeconds]
    {
        let mut values = Vec::new();
        for span in [(0, 300), (0, 7_200), (7_200 - week, 7_200)] {
            let (_, points) = chart(&store, Subject::Model("large".into()), metric, span).await;
            values.push(points[0].1);
        }
        assert!(values.iter().all(|value| (value - values[0]).abs() < 1e-9), "{metric:?}: {values:?}");
    }
    // An hour that is not settled is read from its minutes.
    let window = (today(7_200 - week), today(7_200));
    sqlx::query("DELETE FROM group_hour WHERE hour = $1")
        .bind(today(3_600))
        .execute(store.pool())
        .await
        .unwrap();
    let model = Subject::Model("large".into());
    let live = store.history(&model, Metric::QueueDepth, window, &Retention::default(), today(7_210)).await;
    let live = live.unwrap().unwrap();
    assert_eq!(
        live.points.iter().map(|point| (point.value, point.max)).collect::<Vec<_>>(),
        [(2.0, Some(1.0)), (4.0, Some(2.0))]
    );
    let nobody = Subject::Pool("nobody".into());
    let unknown = store.history(&nobody, Metric::Running, window, &Retention::default(), today(0)).await;
    assert_eq!(unknown.unwrap(), None);
}
