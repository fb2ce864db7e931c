//! Publishes what is in the folder, again whenever it changes, and tells what becomes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clairvoy_xds::{ClientEvent, ClientEventKind, ResourceType, Snapshot, XdsServer};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::MissedTickBehavior;

use crate::folder::{self, Stamp};
use crate::{GROUP, say};

/// How often `.commit` is looked at: one call of the system, and a fraction of the time in which a person or
/// a test expects an effect.
const POLL: Duration = Duration::from_millis(50);

/// Follows the folder for ever. Tells `serving` when there is a snapshot.
pub(crate) async fn folder(folder: PathBuf, server: XdsServer, serving: watch::Sender<bool>) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Option<Stamp> = None;
    let mut first = true;
    let mut published = 0;
    loop {
        ticks.tick().await;
        let stamp = folder::stamp(&folder);
        // Files without `.commit` count when the program starts; later ones may be half written.
        let without_commit = first && stamp.is_none() && folder::has_resources(&folder);
        first = false;
        if stamp == seen && !without_commit {
            continue;
        }
        seen = stamp;
        if stamp.is_none() && !without_commit {
            continue;
        }
        let Some(loaded) = load(&folder).await else { continue };
        if folder::stamp(&folder) != stamp {
            // The next set came while this one was read: it may be a mixture.
            continue;
        }
        match loaded {
            Ok(snapshot) => {
                published += 1;
                say(format_args!("{}", describe(published, &snapshot, server.newest(GROUP).as_ref())));
                server.publish(GROUP, snapshot);
                serving.send_replace(true);
            }
            Err(faults) => {
                say(format_args!("refused faults={}", faults.len()));
                for fault in faults {
                    say(format_args!("fault {fault}"));
                }
            }
        }
    }
}

async fn load(folder: &Path) -> Option<Result<Snapshot, Vec<String>>> {
    let folder = folder.to_owned();
    let loaded = tokio::task::spawn_blocking(move || folder::load(&folder)).await;
    loaded.inspect_err(|error| tracing::error!(%error, "reading the folder failed")).ok()
}

fn describe(number: u64, snapshot: &Snapshot, before: Option<&Snapshot>) -> String {
    let same = |t| before.is_some_and(|before| before.fingerprint(t) == snapshot.fingerprint(t));
    let unchanged = ResourceType::ALL.into_iter().all(same);
    let counts = ResourceType::ALL.map(|t| format!("{t}={}", snapshot.len(t))).join(" ");
    format!("published snapshot={number} {counts}{}", if unchanged { " unchanged" } else { "" })
}

/// Tells of every ACK and NACK.
pub(crate) async fn clients(mut events: broadcast::Receiver<ClientEvent>) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                say(format_args!("missed events={missed}"));
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let node = &event.node_id;
        match event.kind {
            ClientEventKind::Acked { resource_type, latency } => {
                let latency_ms = latency.as_secs_f64() * 1e3;
                say(format_args!("ack node={node:?} type={resource_type} latency_ms={latency_ms:.3}"));
            }
            ClientEventKind::Nacked(nack) => say(format_args!(
                "nack node={node:?} type={} resources={:?} message={:?}",
                nack.resource_type, nack.resources, nack.message
            )),
            _ => {}
        }
    }
}
