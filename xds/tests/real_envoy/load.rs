//! Requests without pause while a test changes things.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time;

use crate::http::{Failure, Http};
use crate::serving::eventually;

const WORKERS: usize = 3;

/// Between two requests of a worker: some hundred requests per second leave the machine room to work.
const PAUSE: Duration = Duration::from_millis(4);

/// The status and what is to be counted, and the connection if it can be used again.
pub(crate) type Outcome = Result<((u16, String), Option<Http>), Failure>;

/// What has come back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Answers with status 200, by their body.
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) failures: Vec<String>,
}

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    workers: JoinSet<()>,
}

impl Load {
    /// Requests on connections that are kept alive.
    pub(crate) fn start(port: u16) -> Self {
        Self::repeating(move |kept: Option<Http>| async move {
            let mut connection = match kept {
                Some(connection) => connection,
                None => Http::connect(port).await?,
            };
            let answer = connection.get("/").await?;
            Ok((answer, Some(connection)))
        })
    }

    /// Repeats a request. It is given the connection that the one before it has returned, and returns the
    /// status and what is to be counted.
    pub(crate) fn repeating<R, F>(request: R) -> Self
    where
        R: Fn(Option<Http>) -> F + Clone + Send + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (stop, tally) = <(Arc<AtomicBool>, Arc<Mutex<Tally>>)>::default();
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let (stop, tally, request) = (stop.clone(), tally.clone(), request.clone());
            workers.spawn(async move {
                let mut connection = None;
                while !stop.load(Ordering::Relaxed) {
                    let outcome = request(connection).await;
                    connection = locked(&tally).add(outcome);
                    time::sleep(PAUSE).await;
                }
            });
        }
        Self { stop, tally, workers }
    }

    fn tally(&self) -> Tally {
        locked(&self.tally).clone()
    }

    fn seen(&self, body: &str) -> u64 {
        self.tally().answers.get(body).copied().unwrap_or_default()
    }

    /// Waits for an answer with this body to a request from now on.
    pub(crate) async fn reaches(&self, body: &str) {
        // What was under way before may come back after: one more than the workers is new for sure.
        let before = self.seen(body) + WORKERS as u64;
        eventually(&format!("requests reach {body}"), async || self.seen(body) > before).await;
    }

    /// Stops, and tells what came back.
    pub(crate) async fn finish(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended.unwrap();
        }
        self.tally()
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// Counts an outcome, and returns the connection that goes on.
    fn add(&mut self, outcome: Outcome) -> Option<Http> {
        match outcome {
            Ok(((200, body), connection)) => {
                *self.answers.entry(body).or_default() += 1;
                return connection;
            }
            Ok(((status, body), _)) => self.failures.push(format!("{status} {body}")),
            Err(error) => self.failures.push(error.to_string()),
        }
        None
    }

    pub(crate) fn requests(&self) -> u64 {
        self.answers.values().sum::<u64>() + self.failures.len() as u64
    }

    /// Fails if a request failed, or if there were too few to tell.
    pub(crate) fn is_clean(&self) {
        assert_eq!(self.failures, [] as [&str; 0], "of {} requests", self.requests());
        assert!(self.requests() > 20, "only {} requests", self.requests());
    }
}
