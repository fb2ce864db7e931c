//! The open streams of a server.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cell::Cell;
use crate::clients::ClientId;
use crate::stream::Renewal;

/// The open streams. An entry lives as long as its stream.
#[derive(Debug, Default)]
pub(super) struct Clients {
    cells: Mutex<BTreeMap<ClientId, Arc<Cell>>>,
    /// Streams of one type, by the id of their node: together they are one client.
    of_one_type: Mutex<HashMap<String, Vec<Arc<Cell>>>>,
}

impl Clients {
    pub(super) fn insert(&self, cell: &Arc<Cell>) {
        self.lock().insert(cell.id, cell.clone());
    }

    /// Notes the node of a stream, once it is known.
    pub(super) fn note_node(&self, cell: &Arc<Cell>, node_id: &str) {
        if cell.service.only.is_some() && !node_id.is_empty() {
            self.lock_of_one_type().entry(node_id.to_owned()).or_default().push(cell.clone());
        }
    }

    pub(super) fn remove(&self, cell: &Cell, node_id: &str) {
        self.lock().remove(&cell.id);
        if cell.service.only.is_some() {
            let mut nodes = self.lock_of_one_type();
            let Some(cells) = nodes.get_mut(node_id) else { return };
            cells.retain(|other| other.id != cell.id);
            if cells.is_empty() {
                nodes.remove(node_id);
            }
        }
    }

    /// Has the other streams of a node send again what it waits for.
    pub(super) fn renew(&self, node_id: &str, renewal: &Renewal) {
        let cells = self.lock_of_one_type().get(node_id).cloned().unwrap_or_default();
        for cell in cells.iter().filter(|cell| cell.service.only == Some(renewal.resource_type)) {
            cell.lock().stream.renew(renewal);
            cell.waker.wake();
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Cell>> {
        self.lock().values().cloned().collect()
    }

    pub(super) fn wake(&self) {
        self.lock().values().for_each(|cell| cell.waker.wake());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ClientId, Arc<Cell>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_of_one_type(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Cell>>>> {
        self.of_one_type.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
