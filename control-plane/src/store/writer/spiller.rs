use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::EventLevel;
use crate::store::spool::SpoolHandle;
use crate::telemetry::Sample;

use super::{Batch, Ids, Shared};

/// How long a full disk is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Moves samples from the queue to the spool while the database is away, and when the queue is half full; after `stop`,
/// all that is left.
pub(super) async fn run(shared: Arc<Shared>, spool: SpoolHandle, stop: CancellationToken) {
    let mut works = true;
    loop {
        let batch = tokio::select! {
            biased;
            () = stop.cancelled() => shared.queue.try_batch(Duration::ZERO),
            batch = due(&shared) => batch,
        };
        let Some(samples) = batch else { return };
        // Each is of a writer of its own: one that can be read only later is behind no other of its writer's then.
        let batch = Arc::new(Batch { id: Ids::new().next(), samples });
        let Err(error) = spool.append(Arc::clone(&batch)).await else {
            works = true;
            continue;
        };
        if works {
            let message = format!("the spool takes no telemetry, which waits in memory now: {error}");
            shared.counters.tell(EventLevel::Error, message);
            works = false;
        }
        let Ok(batch) = Arc::try_unwrap(batch) else { continue };
        if stop.is_cancelled() {
            shared.counters.dropped(batch.samples.len() as u64);
            continue;
        }
        let dropped = shared.queue.put_back(batch.samples);
        shared.counters.dropped(dropped as u64);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Waits for a batch that has to go to the spool.
async fn due(shared: &Shared) -> Option<Vec<Sample>> {
    let mut away = shared.away.subscribe();
    let unwritable = async {
        loop {
            // An error means that the writer is gone, and this task with it.
            let _ = away.wait_for(|away| *away).await;
            tokio::select! {
                biased;
                _ = away.wait_for(|away| !*away) => {}
                batch = shared.queue.next_batch(shared.settings.batch_time) => break batch,
            }
        }
    };
    let overflowing = async {
        match shared.queue.next_above(shared.high_water()).await {
            Some(batch) => Some(batch),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        batch = unwritable => match batch {
            Some(batch) => Some(batch),
            // Closed and empty; a lane may still put something back.
            None => std::future::pending().await,
        },
        batch = overflowing => batch,
    }
}
