use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::DateTime;
use serde_json::json;

use crate::store::RegisteredState;

use super::super::control::{MEMBERSHIP, WEIGHTS};
use super::entry::Share;
use super::{Entry, Item, Journal, Waiting};

fn registered(number: u32, state: RegisteredState) -> Entry {
    Entry::Registered { pool: "p".to_owned(), address: address(number), state, at: DateTime::UNIX_EPOCH }
}

fn address(number: u32) -> String {
    format!("10.0.0.{number}:80")
}

fn unregistered(number: u32) -> Entry {
    Entry::Unregistered { pool: "p".to_owned(), address: address(number) }
}

fn model(kind: &'static str, key: impl ToString, state: serde_json::Value) -> Entry {
    Entry::ModelState { kind, key: key.to_string(), at: DateTime::UNIX_EPOCH, state }
}

fn demand() -> Entry {
    Entry::Demand { step_seconds: 10, rows: Vec::new() }
}

fn journal() -> (Journal, Arc<Waiting>) {
    let waiting = Arc::<Waiting>::default();
    (Journal::over(Arc::clone(&waiting)), waiting)
}

/// What is written, in order, once nothing more comes.
async fn written(journal: Journal, waiting: &Waiting) -> Vec<String> {
    drop(journal);
    let mut found = Vec::new();
    while let Some(item) = waiting.next().await {
        found.push(match &item {
            Item::Entry(Entry::Registered { address, state, .. }, _) => format!("{address} {state:?}"),
            Item::Entry(Entry::Unregistered { address, .. }, _) => format!("{address} gone"),
            Item::Entry(Entry::Event(row), _) => row.message.clone(),
            Item::Entry(..) => "demand".to_owned(),
            Item::Model { kind, key, state, .. } => match state.len() {
                ..50 => format!("{kind} {key} {state}"),
                bytes => format!("{kind} {key} of {bytes}"),
            },
        });
        waiting.give_back(&item);
    }
    found
}

#[tokio::test]
async fn registrations_outlast_a_full_queue_in_their_newest_state() {
    let (journal, waiting) = journal();
    journal.write(registered(1, RegisteredState::Ready));
    for _ in 0..10_004 {
        journal.write(demand());
    }
    journal.write(registered(2, RegisteredState::Ready));
    journal.write(registered(1, RegisteredState::Draining));
    assert_eq!(journal.dropped().load(Ordering::Relaxed), 4, "of the queue");
    let mut found = written(journal, &waiting).await;
    found.dedup();
    assert_eq!(found, ["10.0.0.1:80 Draining", "10.0.0.2:80 Ready", "demand"]);
}

#[tokio::test]
async fn of_a_model_only_the_newest_waits_and_all_together_are_bounded() {
    let (journal, waiting) = journal();
    let megabyte = "x".repeat(1_000_000);
    for round in 0..3 {
        for backend in 0..150 {
            journal.write(model("wait", format!("{backend:03}"), json!([round, megabyte])));
        }
    }
    let fits = Share::Learned.most_bytes() / 1_000_200;
    let dropped = journal.dropped().load(Ordering::Relaxed);
    assert_eq!(dropped, 3 * (150 - fits as u64), "the newest of what is beyond the bound");
    // None of that is in the way of what is decided, found and published.
    journal.write(demand());
    journal.write(model(WEIGHTS, "m", json!(1)));
    journal.write(model(WEIGHTS, "m", json!(2)));
    journal.write(model(MEMBERSHIP, "p", json!({})));
    assert_eq!(journal.dropped().load(Ordering::Relaxed), dropped);
    let found = written(journal, &waiting).await;
    assert_eq!(found.len(), fits + 3);
    assert_eq!(found[0], "membership p {}");
    assert!(found[..4].contains(&"demand".to_owned()), "{:?}", &found[..4]);
    assert!(found.contains(&"weights m 2".to_owned()));
    // What was written makes room.
    let journal = Journal::over(Arc::clone(&waiting));
    journal.write(model("wait", 1, json!(megabyte)));
    assert_eq!(journal.dropped().load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn events_are_bounded_by_their_bytes_and_keep_their_order() {
    let (journal, waiting) = journal();
    let event = |number: usize| crate::store::EventRow {
        at: DateTime::UNIX_EPOCH,
        level: crate::store::EventLevel::Info,
        message: format!("{}{number}", "0".repeat(2_000_000)),
    };
    for number in 0..100 {
        journal.write(Entry::Event(event(number)));
    }
    let found = written(journal.clone(), &waiting);
    let dropped = journal.dropped().load(Ordering::Relaxed) as usize;
    drop(journal);
    let found: Vec<usize> = found.await.iter().filter_map(|message| message.parse().ok()).collect();
    assert!((60..80).contains(&dropped), "{dropped}");
    assert_eq!(found, (0..100 - dropped).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_lease_is_written_before_its_backend_and_goes_after_it() {
    let (journal, waiting) = journal();
    journal.write(registered(1, RegisteredState::Ready));
    journal.write(registered(2, RegisteredState::Ready));
    journal.write(model(MEMBERSHIP, "p", json!({ "leases": 1 })));
    journal.write(unregistered(2));
    journal.write(model(MEMBERSHIP, "p", json!({ "leases": 2 })));
    let found = written(journal, &waiting).await;
    assert_eq!(found, ["10.0.0.2:80 gone", "membership p {\"leases\":2}", "10.0.0.1:80 Ready"]);
}

#[tokio::test]
async fn what_the_database_does_not_take_at_the_end_is_counted() {
    let (store_in, store) = tokio::sync::watch::channel(None);
    let (journal, writing) = Journal::spawn(store);
    journal.write(demand());
    journal.write(registered(1, RegisteredState::Ready));
    journal.write(registered(1, RegisteredState::Draining));
    journal.write(model(WEIGHTS, "m", json!(1)));
    assert_eq!(writing.finish(Duration::from_millis(50)).await, 3);
    drop(store_in);

    // What is being written counts until it is.
    let (journal, waiting) = self::journal();
    journal.write(demand());
    let item = waiting.next().await.unwrap();
    assert_eq!(waiting.len(), 1);
    waiting.give_back(&item);
    assert_eq!(waiting.len(), 0);
}
