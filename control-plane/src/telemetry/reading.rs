use super::field::{Field, Kind};
use super::histogram::Buckets;

/// What one metrics page said, in canonical units. Counters run since the engine started.
///
/// A field is `None` when the page lacks it or when its value was not believed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EngineReading {
    values: [Option<f64>; Field::COUNT],
    /// Part of the KV cache of the fullest data-parallel engine, 0 to 1.
    pub kv_used_max: Option<f64>,
    /// Times to first token.
    pub ttft_buckets: Option<Buckets>,
    /// Times between output tokens.
    pub inter_token_buckets: Option<Buckets>,
    /// True when the page has a series whose name starts with `simulator_`.
    pub simulated: bool,
}

impl EngineReading {
    /// A field's value, over all engines of the backend; none for buckets.
    pub fn get(&self, field: Field) -> Option<f64> {
        self.values[field as usize]
    }

    /// Sets a field's value, which must be one that [`Field::believe`] returned.
    pub fn set(&mut self, field: Field, value: f64) {
        self.values[field as usize] = Some(value);
    }

    /// Makes a field unknown.
    pub fn clear(&mut self, field: Field) {
        self.values[field as usize] = None;
    }

    /// Sets the buckets of a histogram; other fields have none.
    pub fn set_buckets(&mut self, field: Field, buckets: Buckets) {
        match field {
            Field::TtftBucket => self.ttft_buckets = Some(buckets),
            Field::InterTokenBucket => self.inter_token_buckets = Some(buckets),
            _ => {}
        }
    }

    /// Yields the known values.
    pub fn iter(&self) -> impl Iterator<Item = (Field, f64)> {
        Field::ALL.into_iter().filter_map(|field| Some((field, self.get(field)?)))
    }

    /// The same engine at the moment it started: all counters at zero.
    #[must_use]
    pub fn at_start(&self) -> Self {
        let zeroed = |buckets: &Option<Buckets>| {
            buckets.as_ref().map(|buckets| Buckets::new(buckets.edges().iter().map(|(edge, _)| (*edge, 0.0))))
        };
        let mut start = self.clone();
        for field in Field::ALL {
            if matches!(field.kind(), Kind::Counter | Kind::Sum) && self.get(field).is_some() {
                start.set(field, 0.0);
            }
        }
        start.ttft_buckets = zeroed(&self.ttft_buckets);
        start.inter_token_buckets = zeroed(&self.inter_token_buckets);
        start
    }

    /// Adds the counters of an earlier reading, for a page that tells only what came since.
    pub(super) fn add_counters(&mut self, earlier: &Self) {
        for field in Field::ALL {
            if let (Kind::Counter | Kind::Sum, Some(before)) = (field.kind(), earlier.get(field)) {
                self.set(field, before + self.get(field).unwrap_or(0.0));
            }
        }
    }

    /// Takes over the counters of an earlier reading that this one lacks: when they come back, the next difference is to
    /// what was last known.
    pub(crate) fn keep_counters(&mut self, earlier: &Self) {
        for field in Field::ALL {
            if let (Kind::Counter | Kind::Sum, None, Some(before)) =
                (field.kind(), self.get(field), earlier.get(field))
            {
                self.set(field, before);
            }
        }
        for (held, before) in [
            (&mut self.ttft_buckets, &earlier.ttft_buckets),
            (&mut self.inter_token_buckets, &earlier.inter_token_buckets),
        ] {
            if held.is_none() {
                held.clone_from(before);
            }
        }
    }

    /// Fills what other values tell: the part of the cache in use, where the page has both its use and its size.
    pub(super) fn complete(&mut self) {
        if self.get(Field::KvUsed).is_none()
            && let (Some(used), Some(all)) = (self.get(Field::KvTokensUsed), self.get(Field::KvTokens))
            && all > 0.0
            && let Ok(part) = Field::KvUsed.believe(used / all)
        {
            self.set(Field::KvUsed, part);
            self.kv_used_max.get_or_insert(part);
        }
    }
}
