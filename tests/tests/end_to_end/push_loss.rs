//! Clairvoy is killed, or stopped, under a sender that counts: what is lost is what `docs/storage.md` says, and nothing counts
//! twice.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{Clairvoy, Site, free_address, keeping_client, until};

/// What a kill may lose at most: samples that wait for a batch, and the reading that is open.
const IN_MEMORY: TimeDelta = TimeDelta::seconds(4);

/// A value that was taken, and its time.
type Taken = (DateTime<Utc>, u64);

/// A server's counter of requests that ended, told ten times a second; a value that is not taken is sent again, and one
/// that is taken once more all the same, as after a lost answer.
struct Sender {
    taken: Arc<Mutex<Vec<Taken>>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Sender {
    fn start(http: SocketAddr, backend: SocketAddr) -> Self {
        let (taken, stop) = (Arc::<Mutex<Vec<_>>>::default(), CancellationToken::new());
        let task = tokio::spawn({
            let (taken, stop, client) = (Arc::clone(&taken), stop.clone(), keeping_client());
            async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(100));
                let mut completed = 1_000;
                while !stop.is_cancelled() {
                    ticks.tick().await;
                    completed += 1;
                    let at = Utc::now();
                    let body = json!({ "backend": backend.to_string(), "completed": completed, "at": at });
                    let mut left = 2;
                    while left > 0 && !stop.is_cancelled() {
                        let request = client.post(format!("http://{http}/api/v1/telemetry")).json(&body);
                        match request.send().await {
                            Ok(answer) if answer.status() == StatusCode::OK => {
                                if left == 2 {
                                    taken.lock().unwrap().push((at, completed));
                                }
                                left -= 1;
                            }
                            _ => drop(ticks.tick().await),
                        }
                    }
                }
            }
        });
        Self { taken, stop, task }
    }

    fn taken(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits until values of so many seconds after `since` were taken.
    async fn goes_on(&self, since: DateTime<Utc>, seconds: i64) {
        until("the sender's values are taken", 60, async || match self.taken().last() {
            Some((at, _)) if *at - since >= TimeDelta::seconds(seconds) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    async fn end(self) -> Vec<Taken> {
        self.stop.cancel();
        self.task.await.unwrap();
        Arc::into_inner(self.taken).unwrap().into_inner().unwrap()
    }
}

/// Rows, different times of rows, and requests that ended.
async fn stored(clairvoy: &Clairvoy) -> (i64, i64, f64) {
    let mut database = clairvoy.database().await.unwrap();
    sqlx::query_as("SELECT count(*), count(DISTINCT at), sum(completed) FROM backend_sample")
        .fetch_one(&mut database)
        .await
        .unwrap()
}

/// A sender's values count from the newest one of the first reading on, which takes in half a second.
fn counted_from(taken: &[Taken]) -> u64 {
    let first_ms = taken[0].0.timestamp_millis();
    let of_first = |(at, _): &&Taken| at.timestamp_millis() - first_ms < 500;
    taken.iter().take_while(of_first).last().unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_loses_nothing_that_was_acknowledged() {
    let [http, backend] = [(); 2].map(|()| free_address());
    let site = Site::new();
    site.configure(&format!(
        "telemetry: {{ push: {{ http: {http}, flush: 20s }} }}\nmodels:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - {{ name: a, telemetry: push, backends: [\"{backend}\"] }}\n"
    ));
    let (mut expected, mut times_before) = (0.0, 0);
    for round in 0..3 {
        let clairvoy = site.serve().await;
        let sender = Sender::start(http, backend);
        sender.goes_on(Utc::now(), 2 + round).await;
        // While it sends, so that a reading is open.
        assert!(clairvoy.stop().success());
        let taken = sender.end().await;
        expected += (taken.last().unwrap().1 - counted_from(&taken)) as f64;

        let clairvoy = site.serve().await;
        let (rows, times, counted) = stored(&clairvoy).await;
        assert_eq!(counted, expected, "after {} values", taken.len());
        assert!(rows == times && times > times_before, "{rows} rows of {times} times, {times_before} before");
        times_before = times;
        assert!(clairvoy.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_seconds_of_acknowledged_telemetry_at_most() {
    let [http, backend] = [(); 2].map(|()| free_address());
    let site = Site::new();
    site.configure(&format!(
        "telemetry: {{ push: {{ http: {http} }} }}\nmodels:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - {{ name: a, telemetry: push, backends: [\"{backend}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let sender = Sender::start(http, backend);
    sender.goes_on(Utc::now(), 12).await;
    let killed = Utc::now();
    clairvoy.kill();
    let clairvoy = site.serve().await;
    sender.goes_on(killed, 12).await;
    let taken = sender.end().await;
    assert!(clairvoy.stop().success());

    let clairvoy = site.serve().await;
    let (rows, times, counted) = stored(&clairvoy).await;
    let value = |found: Option<&Taken>| found.unwrap().1 as f64;
    let all = value(taken.last()) - value(taken.first());
    assert!(counted <= all, "{counted} of {all}: something counts twice");
    assert_eq!(rows, times, "no sample is there twice");
    // From what was surely written to the first value that the next process could tell a growth from.
    let written = value(taken.iter().rev().find(|(at, _)| *at <= killed - IN_MEMORY));
    let known_again = value(taken.iter().find(|(at, _)| *at > killed + TimeDelta::seconds(1)));
    let lost = known_again + 10.0 - written;
    assert!(counted >= all - lost, "{counted} of {all}, and at most {lost} may be lost");
    // The first reading of each process, half a second long, counts nothing.
    assert!(counted > 0.5 * all, "{counted} of {all}");
}
