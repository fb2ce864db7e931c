//! Publishes what is in the folder, again whenever it changes, and tells what becomes of it.

use std::path::PathBuf;
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

/// Turns the sets of files in a folder into snapshots.
pub(crate) struct Follower {
    folder: PathBuf,
    server: XdsServer,
    serving: watch::Sender<bool>,
    seen: Option<Stamp>,
    published: u64,
}

impl Follower {
    /// Publishes what is in the folder, if it is committed or if nothing ever was. Tells `serving` when there
    /// is a snapshot, now or later.
    pub(crate) async fn start(folder: PathBuf, server: XdsServer, serving: watch::Sender<bool>) -> Self {
        let mut follower = Self { folder, server, serving, seen: None, published: 0 };
        // Only now: later on, files without `.commit` may be half written.
        if folder::stamp(&follower.folder).is_some() || folder::has_resources(&follower.folder) {
            follower.take().await;
        }
        follower
    }

    /// Follows the folder for ever.
    pub(crate) async fn run(mut self) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stamp = folder::stamp(&self.folder);
            if stamp.is_some() && stamp != self.seen {
                self.take().await;
            }
        }
    }

    async fn take(&mut self) {
        let stamp = folder::stamp(&self.folder);
        let folder = self.folder.clone();
        let loaded = match tokio::task::spawn_blocking(move || folder::load(&folder)).await {
            Ok(loaded) => loaded,
            Err(error) => return tracing::error!(%error, "reading the folder failed"),
        };
        if folder::stamp(&self.folder) != stamp {
            // The next set came while this one was read, which may be a mixture. The next look takes it.
            return;
        }
        self.seen = stamp;
        match loaded {
            Ok(snapshot) => {
                self.published += 1;
                let before = self.server.newest(GROUP);
                say(format_args!("{}", describe(self.published, &snapshot, before.as_ref())));
                self.server.publish(GROUP, snapshot);
                self.serving.send_replace(true);
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
