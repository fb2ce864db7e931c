//! The newest snapshot of each group.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::stream::Published;

type Newest = Option<Arc<Published>>;

/// Groups by name. A group exists from its first snapshot or its first stream on; one that never had a
/// snapshot, or whose snapshot was withdrawn, goes with its last stream.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: Mutex<HashMap<Arc<str>, watch::Sender<Newest>>>,
}

impl Groups {
    /// False if the group's newest snapshot has the same content already.
    pub(super) fn publish(&self, group: &str, published: Arc<Published>) -> bool {
        // Under the lock, so that the group cannot go between. Nobody holds it for longer than a look-up.
        self.lock().entry(group.into()).or_default().send_if_modified(|newest| {
            let unchanged =
                newest.as_ref().is_some_and(|newest| newest.snapshot.same_content(&published.snapshot));
            if !unchanged {
                *newest = Some(published);
            }
            !unchanged
        })
    }

    /// False if the group had no snapshot.
    pub(super) fn withdraw(&self, group: &str) -> bool {
        let mut groups = self.lock();
        let Some(sender) = groups.get(group) else { return false };
        let withdrawn = sender.send_if_modified(|newest| newest.take().is_some());
        // The streams of the group follow the sender, and are to see what is published next.
        if sender.receiver_count() == 0 {
            groups.remove(group);
        }
        withdrawn
    }

    pub(super) fn newest(&self, group: &str) -> Newest {
        self.lock().get(group).and_then(|sender| sender.borrow().clone())
    }

    pub(super) fn subscribe(&self, group: &str) -> watch::Receiver<Newest> {
        let mut groups = self.lock();
        groups.retain(|_, sender| sender.borrow().is_some() || sender.receiver_count() > 0);
        groups.entry(group.into()).or_default().subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Sender<Newest>>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::snapshot::SnapshotBuilder;

    fn published() -> Arc<Published> {
        let snapshot = SnapshotBuilder::new().build().unwrap();
        Arc::new(Published { snapshot, at: Instant::now() })
    }

    #[test]
    fn a_withdrawn_snapshot_is_freed() {
        let groups = Groups::default();
        let (snapshot, follower) = (published(), groups.subscribe("followed"));
        for group in ["followed", "alone"] {
            assert!(!groups.withdraw(group));
            assert!(groups.publish(group, snapshot.clone()));
            assert!(groups.withdraw(group));
            assert!(groups.newest(group).is_none());
        }
        assert_eq!(Arc::strong_count(&snapshot), 1);
        assert_eq!(groups.lock().keys().map(|name| &**name).collect::<Vec<_>>(), ["followed"]);
        assert!(groups.publish("followed", snapshot));
        assert!(follower.borrow().is_some());
    }
}
