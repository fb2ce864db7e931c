use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, DnsDiscovery};

use super::Answer;
use super::lookup::{Looks, look};
use super::schedule::pause;

/// How soon a changed configuration is followed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What a lookup for a pool said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Looked {
    pub(crate) pool: String,
    /// What was asked for; an answer to a question that has changed meanwhile is of no use.
    pub(crate) asked: DnsDiscovery,
    pub(crate) answer: Answer,
    /// Backends that were left out of the answer, because a name has no more than [`super::MOST_FOUND`].
    #[serde(default)]
    pub(crate) beyond: usize,
}

/// Looks up the backends of all pools that have a name in DNS, in a task each, until `stop`.
pub(crate) async fn watch(
    config: Arc<ArcSwap<Config>>,
    answers: mpsc::Sender<Looked>,
    seed: u64,
    stop: CancellationToken,
) {
    let mut tasks: BTreeMap<String, (DnsDiscovery, CancellationToken)> = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let config = config.load_full();
        tasks.retain(|pool, (dns, task)| {
            let stays = config.pool(pool).and_then(|pool| pool.dns()) == Some(dns);
            if !stays {
                task.cancel();
            }
            stays
        });
        for pool in &config.pools {
            let Some(dns) = pool.dns().filter(|_| !tasks.contains_key(&pool.name)) else { continue };
            let task = stop.child_token();
            tasks.insert(pool.name.clone(), (dns.clone(), task.clone()));
            let mut hasher = DefaultHasher::new();
            (seed, &pool.name).hash(&mut hasher);
            let following = follow(pool.name.clone(), dns.clone(), answers.clone(), hasher.finish());
            tokio::spawn(async move { task.run_until_cancelled(following).await });
        }
    }
}

/// Looks up the backends of one pool for ever.
async fn follow(pool: String, dns: DnsDiscovery, answers: mpsc::Sender<Looked>, seed: u64) {
    let mut failures: u32 = 0;
    for round in 0.. {
        let (answer, ttl, beyond) = match look(&dns).await {
            Ok(Looks { backends, ttl, beyond }) => (Answer::Backends(backends), Some(ttl), beyond),
            Err(failure) => (Answer::Failed(failure), None, 0),
        };
        failures = if ttl.is_some() { 0 } else { failures.saturating_add(1) };
        let looked = Looked { pool: pool.clone(), asked: dns.clone(), answer, beyond };
        if answers.send(looked).await.is_err() {
            return;
        }
        tokio::time::sleep(pause(dns.refresh, ttl, failures, seed, round)).await;
    }
}
