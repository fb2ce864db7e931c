use clairvoy::store::{
    AcknowledgementRow, BackendRow, DecisionRow, DemandRow, EventLevel, EventRow, ForecastRow, Refusal,
    RegisteredState,
};
use serde_json::json;
use sqlx::types::Uuid;

use crate::support::{SharedServer, today};

fn demand(model: &str, second: i64, rate: f64) -> DemandRow {
    DemandRow { model: model.into(), at: today(second), requests_per_second: rate }
}

#[tokio::test]
async fn demand_is_replaced_by_step_and_read_by_window() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let rows = [demand("a", 0, 1.0), demand("a", 10, 2.0), demand("b", 10, 9.0), demand("a", 10, 3.0)];
    assert_eq!(store.put_demand(10, &rows).await.unwrap(), 3, "the last of a step counts");
    store.put_demand(60, &[demand("a", 0, 7.0)]).await.unwrap();
    store.put_demand(10, &[demand("a", 0, 1.5)]).await.unwrap();
    let read = store.demand("a", 10, today(0), today(20)).await.unwrap();
    assert_eq!(read, [demand("a", 0, 1.5), demand("a", 10, 3.0)]);
    assert_eq!(store.demand("a", 10, today(10), today(20)).await.unwrap().len(), 1);
    assert_eq!(store.put_demand(10, &[]).await.unwrap(), 0);

    let many: Vec<_> = (0..25_000).map(|n| demand("c", n * 10, n as f64)).collect();
    assert_eq!(store.put_demand(10, &many).await.unwrap(), 25_000);
}

fn forecast(issued: i64, horizon: i32) -> ForecastRow {
    let q50 = issued as f64 + f64::from(horizon) / 1_000.0;
    ForecastRow {
        model: "a".into(),
        issued_at: today(issued),
        horizon_seconds: horizon,
        target_at: today(issued + i64::from(horizon)),
        target_seconds: 10,
        q10: q50 - 1.0,
        q50,
        q90: q50 + 1.0,
        q95: q50 + 2.0,
        q99: q50 + 3.0,
        expert: "last_value".into(),
    }
}

#[tokio::test]
async fn forecasts_are_read_as_they_were_issued() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let all: Vec<_> = (0..10).flat_map(|n| [10, 20, 30].map(|horizon| forecast(n * 10, horizon))).collect();
    assert_eq!(store.put_forecasts(&all).await.unwrap(), 30);
    let mut changed = forecast(0, 10);
    changed.q50 = -1.0;
    assert_eq!(store.put_forecasts(&[changed]).await.unwrap(), 0, "what was issued never changes");

    let issued = store.forecasts_as_issued("a", 20, today(50), today(80)).await.unwrap();
    assert_eq!(issued, [forecast(30, 20), forecast(40, 20), forecast(50, 20)]);
    let issued = store.forecasts_as_issued("a", 11, today(110), today(130)).await.unwrap();
    assert_eq!(issued, [forecast(90, 20), forecast(90, 30)], "at the end only longer horizons are left");
    let latest = store.latest_forecast("a").await.unwrap();
    assert_eq!(latest, [forecast(90, 10), forecast(90, 20), forecast(90, 30)]);
    assert!(store.latest_forecast("b").await.unwrap().is_empty());
}

#[tokio::test]
async fn the_newest_versions_of_a_model_are_kept() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    assert_eq!(store.load_model_state("wait", "a").await.unwrap(), None);
    let state = json!({"n": 1});
    let saves = (0..8).map(|_| store.save_model_state("wait", "a", today(0), &state));
    let mut versions: Vec<i32> =
        futures::future::join_all(saves).await.into_iter().map(Result::unwrap).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=8).collect::<Vec<_>>());
    let other = store.save_model_state("wait", "b", today(5), &json!([1.5])).await.unwrap();
    assert_eq!(other, 1);
    assert_eq!(store.load_model_state("wait", "a").await.unwrap().unwrap().version, 8);
    assert_eq!(store.load_model_state("wait", "b").await.unwrap().unwrap().state, json!([1.5]));
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM model_state WHERE key = 'a'")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(kept, 5);
}

#[tokio::test]
async fn decisions_and_events_are_listed_newest_first() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let decision = |n: u128, kind: &str| DecisionRow {
        id: Uuid::from_u128(n),
        at: today(i64::try_from(n).unwrap()),
        kind: kind.into(),
        model: "a".into(),
        pool: (n == 2).then(|| "p".into()),
        summary: format!("decision {n}"),
        inputs: json!({"wait": 0.5}),
        changes: json!([{"target": "h:1", "from": 0.5, "to": 0.25, "reason": "slow"}]),
    };
    for row in
        [decision(1, "weights"), decision(2, "replicas"), decision(3, "weights"), decision(1, "weights")]
    {
        store.put_decision(&row).await.unwrap();
    }
    assert_eq!(store.decisions(2).await.unwrap(), [decision(3, "weights"), decision(2, "replicas")]);
    assert_eq!(store.decision(Uuid::from_u128(2)).await.unwrap(), Some(decision(2, "replicas")));
    assert!(store.put_decision(&decision(4, "guess")).await.is_err(), "kinds are fixed");

    let event = |second, level| EventRow { at: today(second), level, message: "x".into() };
    let events = [event(1, EventLevel::Info), event(2, EventLevel::Error)];
    for event in &events {
        store.put_event(event).await.unwrap();
    }
    assert_eq!(store.events(9).await.unwrap(), [events[1].clone(), events[0].clone()]);
}

#[tokio::test]
async fn the_newest_event_of_some_is_found_at_a_time() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let said = ["started", "m fell: a_b", "m rose", "m fell: c", "of others", "m fell%"];
    let event =
        |at, message: &str| EventRow { at: today(at), level: EventLevel::Info, message: message.into() };
    for (second, message) in (1..).zip(said) {
        store.put_event(&event(second, message)).await.unwrap();
    }
    let exact = ["started".to_owned(), "m rose".to_owned()];
    for (at, found) in [(0, None), (1, Some(1)), (2, Some(2)), (3, Some(3)), (4, Some(4)), (9, Some(4))] {
        let newest = store.newest_event(&exact, "m fell: ", today(at)).await.unwrap();
        let expected = found.map(|second: usize| event(second as i64, said[second - 1]));
        assert_eq!(newest, expected, "{at}");
    }
}

#[tokio::test]
async fn what_envoys_said_is_written_once_and_read_by_decision() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let row = |n: u128, accepted: i32| AcknowledgementRow {
        decision_id: Uuid::from_u128(n),
        published_at: today(i64::try_from(n).unwrap()),
        envoys: 4,
        accepted,
        refused: 4 - accepted,
        gone: 0,
        first_seconds: (accepted > 0).then_some(0.25),
        last_seconds: (accepted > 0).then_some(0.5),
        refusals: (accepted..4)
            .map(|node| Refusal { node: format!("edge-{node}"), reason: "bad \"weight\"".into() })
            .collect(),
    };
    store.put_acknowledgements(&[row(1, 4), row(2, 1), row(3, 0)]).await.unwrap();
    store.put_acknowledgements(&[row(2, 4)]).await.unwrap();
    store.put_acknowledgements(&[]).await.unwrap();
    let ids = [2, 3, 9].map(Uuid::from_u128);
    let mut read = store.acknowledgements(&ids).await.unwrap();
    read.sort_by_key(|row| row.decision_id);
    assert_eq!(read, [row(2, 1), row(3, 0)]);
}

#[tokio::test]
async fn describing_backends_again_changes_only_what_changed_and_uses_no_numbers_up() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    let row =
        |n: usize, pool: &str| BackendRow { address: format!("h:{n}"), pool: pool.into(), model: "m".into() };
    let mut rows: Vec<BackendRow> = (0..100).map(|n| row(n, "p")).collect();
    for _ in 0..5 {
        store.describe_backends(&rows).await.unwrap();
    }
    rows[3].pool = "q".into();
    rows.push(row(100, "q"));
    store.describe_backends(&rows).await.unwrap();
    let (count, newest, moved): (i64, i32, i64) =
        sqlx::query_as("SELECT count(*), max(id), count(*) FILTER (WHERE pool = 'q') FROM backend")
            .fetch_one(store.pool())
            .await
            .unwrap();
    assert_eq!((count, newest, moved), (101, 101, 2));
}

#[tokio::test]
async fn registered_backends_come_drain_and_go() {
    let server = SharedServer::get().await;
    let store = server.store().await;
    assert!(store.register_backend("p", "h:1", today(0)).await.unwrap());
    assert!(store.set_registered_state("p", "h:1", RegisteredState::Draining, today(5)).await.unwrap());
    let listed = store.registered_backends().await.unwrap();
    assert_eq!((listed[0].state, listed[0].updated_at), (RegisteredState::Draining, today(5)));
    assert!(!store.register_backend("p", "h:1", today(9)).await.unwrap(), "it was there");
    let listed = store.registered_backends().await.unwrap();
    assert_eq!((listed[0].state, listed[0].registered_at), (RegisteredState::Ready, today(0)));
    assert!(!store.set_registered_state("p", "h:2", RegisteredState::Draining, today(5)).await.unwrap());
    assert!(store.remove_registered_backend("p", "h:1").await.unwrap());
    assert!(!store.remove_registered_backend("p", "h:1").await.unwrap());
    assert!(store.registered_backends().await.unwrap().is_empty());
}
