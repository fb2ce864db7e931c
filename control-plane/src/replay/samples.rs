use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::store::Store;
use crate::telemetry::Sample;

use super::export::PIECE;

/// Samples that were read and not named yet.
pub(super) struct Samples<'a> {
    store: &'a Store,
    model: Option<String>,
    loaded: DateTime<Utc>,
    forgotten: DateTime<Utc>,
    waiting: Waiting,
}

impl<'a> Samples<'a> {
    pub(super) fn new(store: &'a Store, model: Option<String>, from: DateTime<Utc>) -> Self {
        Self { store, model, loaded: from, forgotten: from, waiting: Waiting::default() }
    }

    /// Has the samples of `from..to` at hand, unless they were taken already.
    pub(super) async fn load(&mut self, from: DateTime<Utc>, to: DateTime<Utc>) -> anyhow::Result<()> {
        if from < self.forgotten {
            // The clock was set back.
            self.waiting = Waiting::default();
            (self.loaded, self.forgotten) = (from, from);
        }
        while self.loaded < to {
            let end = self.loaded + PIECE;
            for sample in self.store.samples_whole(self.model.as_deref(), self.loaded, end).await? {
                self.waiting.put(sample);
            }
            self.loaded = end;
        }
        Ok(())
    }

    pub(super) fn take(&mut self, at: DateTime<Utc>, backend: &str) -> Option<Sample> {
        self.waiting.take(at, backend)
    }

    /// Lets those go that were never named.
    pub(super) fn forget(&mut self, before: DateTime<Utc>) {
        self.forgotten = self.forgotten.max(before);
        self.waiting.forget(before);
    }
}

/// Samples by time and backend; those of the same time and backend as they came.
#[derive(Default)]
struct Waiting(BTreeMap<(DateTime<Utc>, Arc<str>), VecDeque<Sample>>);

impl Waiting {
    fn put(&mut self, sample: Sample) {
        self.0.entry((sample.at, Arc::clone(&sample.backend))).or_default().push_back(sample);
    }

    fn take(&mut self, at: DateTime<Utc>, backend: &str) -> Option<Sample> {
        let key = (at, Arc::from(backend));
        let found = self.0.get_mut(&key)?;
        let sample = found.pop_front();
        if found.is_empty() {
            self.0.remove(&key);
        }
        sample
    }

    fn forget(&mut self, before: DateTime<Utc>) {
        self.0 = self.0.split_off(&(before, Arc::from("")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_one_time_are_taken_as_they_came() {
        let sample = |arrived: f64| Sample { backend: "10.0.0.1:80".into(), arrived, ..Sample::default() };
        let mut waiting = Waiting::default();
        for arrived in [3.0, 1.0, 2.0] {
            waiting.put(sample(arrived));
        }
        let at = sample(0.0).at;
        let taken = std::iter::from_fn(|| waiting.take(at, "10.0.0.1:80")).map(|sample| sample.arrived);
        assert_eq!(taken.collect::<Vec<_>>(), [3.0, 1.0, 2.0]);
    }
}
