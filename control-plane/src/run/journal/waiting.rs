use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::super::control::MEMBERSHIP;
use super::entry::{Entry, Item, Share};

/// Entries that may wait in order while the database is away: hours of a small fleet, minutes of a large one.
const QUEUE: usize = 10_000;

type Key = (String, String);

/// What is not written yet. Decisions, forecasts, events and recorded inputs wait in order. Of what only counts in its newest
/// form, one waits: the state of each registered backend, and each saved model.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    inside: Mutex<Inside>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inside {
    queue: VecDeque<Item>,
    /// By pool and address.
    unregistered: BTreeMap<Key, Item>,
    registered: BTreeMap<Key, Item>,
    /// By pool.
    membership: BTreeMap<String, Item>,
    /// By kind and key.
    models: BTreeMap<(&'static str, String), Item>,
    last_model: Option<(&'static str, String)>,
    /// Whether a model was taken last.
    was_model: bool,
    /// Bytes that wait or are being written.
    bytes: [usize; Share::ALL.len()],
    /// Items that were taken and not given back.
    at_hand: usize,
    is_closed: bool,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns false when there is no room.
    pub(super) fn put(&self, entry: Entry) -> bool {
        let Some(item) = Item::new(entry) else { return false };
        let is_kept = self.lock().put(item);
        self.changed.notify_one();
        is_kept
    }

    /// Waits for the next item to write. `None` when there will be no more. Its bytes count until it is given back.
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            {
                let mut inside = self.lock();
                match inside.take() {
                    Some(item) => {
                        inside.at_hand += 1;
                        return Some(item);
                    }
                    None if inside.is_closed => return None,
                    None => {}
                }
            }
            self.changed.notified().await;
        }
    }

    pub(super) fn give_back(&self, item: &Item) {
        self.lock().forget(item);
    }

    /// Items that are not written, the one that is being written among them.
    pub(super) fn len(&self) -> usize {
        let inside = self.lock();
        let newest = inside.unregistered.len() + inside.registered.len() + inside.membership.len();
        inside.queue.len() + newest + inside.models.len() + inside.at_hand
    }

    /// Says that nothing will be put any more.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }
}

impl Inside {
    fn put(&mut self, item: Item) -> bool {
        let (share, bytes) = (item.share(), item.bytes());
        let replaced = self.earlier(&item).map_or(0, Item::bytes);
        let waiting = &mut self.bytes[share as usize];
        let after = *waiting - replaced + bytes;
        if after > share.most_bytes() || (item.is_queued() && self.queue.len() >= QUEUE) {
            return false;
        }
        *waiting = after;
        match item.place() {
            Place::Queue => self.queue.push_back(item),
            Place::Registered(key) => {
                self.unregistered.remove(&key);
                self.registered.insert(key, item);
            }
            Place::Unregistered(key) => {
                self.registered.remove(&key);
                self.unregistered.insert(key, item);
            }
            Place::Membership(pool) => drop(self.membership.insert(pool, item)),
            Place::Model(key) => drop(self.models.insert(key, item)),
        }
        true
    }

    /// What an item takes the place of.
    fn earlier(&self, item: &Item) -> Option<&Item> {
        match item.place() {
            Place::Queue => None,
            Place::Registered(key) | Place::Unregistered(key) => {
                self.registered.get(&key).or_else(|| self.unregistered.get(&key))
            }
            Place::Membership(pool) => self.membership.get(&pool),
            Place::Model(key) => self.models.get(&key),
        }
    }

    /// A lease is written before the backend that has it, and goes after it: a process that is killed between the two leaves
    /// no backend that stays for ever.
    fn take(&mut self) -> Option<Item> {
        let promised = self.unregistered.pop_first().map(|(_, item)| item);
        let promised = promised.or_else(|| self.membership.pop_first().map(|(_, item)| item));
        let promised = promised.or_else(|| self.registered.pop_first().map(|(_, item)| item));
        if promised.is_some() {
            return promised;
        }
        // By turns, so that neither the many models of a large fleet nor a long queue holds up the other.
        let item = match self.was_model {
            true => self.queue.pop_front().or_else(|| self.take_model()),
            false => self.take_model().or_else(|| self.queue.pop_front()),
        }?;
        self.was_model = !item.is_queued();
        Some(item)
    }

    /// Takes one model after the other, so that those which are often trained hold up no others.
    fn take_model(&mut self) -> Option<Item> {
        let after = self.last_model.as_ref().and_then(|last| {
            let mut others = self.models.range((Bound::Excluded(last.clone()), Bound::Unbounded));
            others.next().map(|(key, _)| key.clone())
        });
        let key = after.or_else(|| self.models.keys().next().cloned())?;
        let item = self.models.remove(&key);
        self.last_model = Some(key);
        item
    }

    fn forget(&mut self, item: &Item) {
        self.at_hand = self.at_hand.saturating_sub(1);
        let waiting = &mut self.bytes[item.share() as usize];
        *waiting = waiting.saturating_sub(item.bytes());
    }
}

/// Where an item waits.
enum Place {
    Queue,
    Registered(Key),
    Unregistered(Key),
    Membership(String),
    Model((&'static str, String)),
}

impl Item {
    fn place(&self) -> Place {
        match self {
            Self::Model { kind: MEMBERSHIP, key, .. } => Place::Membership(key.clone()),
            Self::Model { kind, key, .. } => Place::Model((kind, key.clone())),
            Self::Entry(Entry::Registered { pool, address, .. }, _) => {
                Place::Registered((pool.clone(), address.clone()))
            }
            Self::Entry(Entry::Unregistered { pool, address }, _) => {
                Place::Unregistered((pool.clone(), address.clone()))
            }
            Self::Entry(..) => Place::Queue,
        }
    }

    fn is_queued(&self) -> bool {
        matches!(self.place(), Place::Queue)
    }
}
