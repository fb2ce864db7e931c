//! Changes, and what became of each.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use chrono::{DateTime, Utc};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sqlx::postgres::PgConnection;
use tokio::time::{Instant, sleep, sleep_until};

use crate::backends::Backend;
use crate::site::{MODEL, Site};

/// Mean time between two changes, real seconds.
const BETWEEN_SECONDS: f64 = 1.0;
/// A backend is well again after so long.
const SLOW_FOR: Duration = Duration::from_secs(5);
/// What Envoys said is written down within this time.
const WRITTEN_WITHIN: Duration = Duration::from_secs(14);
/// A change that shows in no decision within this time counts as missed, seconds.
const LOOKED_FOR_SECONDS: f64 = 10.0;

/// The way of one change to Envoy, seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// From the end of the scrape until the decision began.
    pub(crate) waited: f64,
    /// Until it was published.
    pub(crate) decided: f64,
    /// Until Envoy's ACK.
    pub(crate) acknowledged: f64,
}

impl Way {
    pub(crate) fn all(&self) -> f64 {
        self.waited + self.decided + self.acknowledged
    }
}

/// What came of the changes.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) ways: Vec<Way>,
    /// No page, no decision or no ACK of it.
    pub(crate) missed: usize,
}

/// Makes random backends slow, one after the other at random times, and waits until all of it is written down.
pub(crate) async fn change(
    site: &mut Site,
    backends: &[Arc<Backend>],
    changes: usize,
    seed: u64,
) -> Result<Vec<Arc<Backend>>> {
    ensure!(changes < backends.len() / 2, "{changes} changes want twice as many backends");
    let mut random = StdRng::seed_from_u64(seed);
    let mut chosen: Vec<Arc<Backend>> = backends.to_vec();
    chosen.shuffle(&mut random);
    chosen.truncate(changes);
    let mut next = Instant::now();
    let mut slow: Vec<(Instant, &Arc<Backend>)> = Vec::new();
    for backend in &chosen {
        next += Duration::from_secs_f64(random.random_range(0.0..2.0) * BETWEEN_SECONDS);
        sleep_until(next).await;
        backend.set_slow(true);
        slow.push((Instant::now(), backend));
        slow.retain(|(since, backend)| {
            let is_over = since.elapsed() >= SLOW_FOR;
            if is_over {
                backend.set_slow(false);
            }
            !is_over
        });
        site.check()?;
    }
    sleep(WRITTEN_WITHIN).await;
    site.check()?;
    Ok(chosen)
}

/// Reads when each change was decided on, published and acknowledged.
pub(crate) async fn read(database: &mut PgConnection, changed: &[Arc<Backend>]) -> Result<Measured> {
    let mut measured = Measured::default();
    for backend in changed {
        let way = match backend.shown() {
            Some(shown) => way(database, backend, shown).await?,
            None => None,
        };
        match way {
            Some(way) => measured.ways.push(way),
            None => measured.missed += 1,
        }
    }
    Ok(measured)
}

/// When a decision was made and published, and the time until its ACK.
type Told = (DateTime<Utc>, DateTime<Utc>, f64);

/// The first decision after a scrape that gave the backend a group of its own, whose weight so is another one.
async fn way(database: &mut PgConnection, backend: &Backend, shown: DateTime<Utc>) -> Result<Option<Way>> {
    let told: Option<Told> = sqlx::query_as(
        "SELECT d.at, a.published_at, a.last_seconds
         FROM decision d JOIN acknowledgement a ON a.decision_id = d.id
         WHERE d.model = $1 AND d.at BETWEEN $2 AND $2 + make_interval(secs => $3) AND a.last_seconds IS NOT NULL
           AND EXISTS (SELECT FROM jsonb_array_elements(d.inputs -> 'groups') g WHERE g ->> 'name' LIKE '%/' || $4)
           AND NOT COALESCE(d.inputs -> 'previous' -> 'aside' ? $4, false)
         ORDER BY d.at LIMIT 1",
    )
    .bind(MODEL)
    .bind(shown)
    .bind(LOOKED_FOR_SECONDS)
    .bind(backend.address.to_string())
    .fetch_optional(database)
    .await?;
    let seconds = |from: DateTime<Utc>, to: DateTime<Utc>| (to - from).as_seconds_f64();
    Ok(told.map(|(decided, published, acknowledged)| Way {
        waited: seconds(shown, decided),
        decided: seconds(decided, published),
        acknowledged,
    }))
}
