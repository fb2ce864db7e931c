use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Backend;

/// Backends by address, and which of them serve each model: nothing that is done for a model looks at all others.
#[derive(Clone, Debug, Default)]
pub(super) struct Backends {
    by_address: BTreeMap<SocketAddr, Backend>,
    by_model: BTreeMap<String, BTreeSet<SocketAddr>>,
}

impl Backends {
    pub(super) fn get(&self, address: &SocketAddr) -> Option<&Backend> {
        self.by_address.get(address)
    }

    /// A backend, to be changed, but for its address and its model.
    pub(super) fn get_mut(&mut self, address: &SocketAddr) -> Option<&mut Backend> {
        self.by_address.get_mut(address)
    }

    /// By address.
    pub(super) fn values(&self) -> impl Iterator<Item = &Backend> {
        self.by_address.values()
    }

    /// By address, to be changed, but for their addresses and models.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Backend> {
        self.by_address.values_mut()
    }

    /// Those of a model, by address.
    pub(super) fn of_model(&self, model: &str) -> impl Iterator<Item = &Backend> {
        let addresses = self.by_model.get(model).into_iter().flatten();
        addresses.filter_map(|address| self.by_address.get(address))
    }

    /// Changes those of a model, by address, but for their addresses and models.
    pub(super) fn change_of_model(&mut self, model: &str, change: impl Fn(&mut Backend)) {
        for address in self.by_model.get(model).into_iter().flatten() {
            if let Some(backend) = self.by_address.get_mut(address) {
                change(backend);
            }
        }
    }

    /// Puts one in, in the place of the one with its address.
    pub(super) fn insert(&mut self, backend: Backend) {
        self.remove(&backend.address);
        self.by_model.entry(backend.model.clone()).or_default().insert(backend.address);
        self.by_address.insert(backend.address, backend);
    }

    pub(super) fn remove(&mut self, address: &SocketAddr) -> Option<Backend> {
        let gone = self.by_address.remove(address)?;
        if let Some(addresses) = self.by_model.get_mut(&gone.model) {
            addresses.remove(address);
            if addresses.is_empty() {
                self.by_model.remove(&gone.model);
            }
        }
        Some(gone)
    }
}

impl Serialize for Backends {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.by_address.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Backends {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut backends = Self::default();
        for backend in BTreeMap::<SocketAddr, Backend>::deserialize(deserializer)?.into_values() {
            backends.insert(backend);
        }
        Ok(backends)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::Origin;
    use super::*;

    fn backend(number: u8, model: &str) -> Backend {
        let address = SocketAddr::from(([10, 0, 0, number], 80));
        Backend::new(address, model, "p", Origin::Configured, DateTime::UNIX_EPOCH)
    }

    fn of(backends: &Backends, model: &str) -> Vec<SocketAddr> {
        backends.of_model(model).map(|backend| backend.address).collect()
    }

    #[test]
    fn the_index_follows_what_comes_goes_and_changes_its_model() {
        let mut backends = Backends::default();
        [(2, "a"), (1, "a"), (3, "b")].into_iter().for_each(|(n, model)| backends.insert(backend(n, model)));
        let [first, second, third] = [1, 2, 3].map(|n| backend(n, "").address);
        assert_eq!(of(&backends, "a"), [first, second]);
        backends.insert(backend(2, "b"));
        assert_eq!((of(&backends, "a"), of(&backends, "b")), (vec![first], vec![second, third]));
        backends.remove(&first);
        assert!(of(&backends, "a").is_empty() && of(&backends, "none").is_empty());
        let again: Backends = serde_json::from_value(serde_json::to_value(&backends).unwrap()).unwrap();
        assert_eq!(of(&again, "b"), [second, third]);
        assert_eq!(again.values().count(), 2);
    }
}
