use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use super::field::Field;

/// Why a value was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// NaN.
    NotANumber,
    /// Plus or minus infinity.
    Infinite,
    /// Below zero.
    Negative,
    /// One of the huge numbers (9.2e18 and more) by which exporters say "not supported".
    Sentinel,
    /// Beyond what a server can reach.
    TooLarge,
}

impl DropReason {
    /// All reasons, in the order of their indices.
    pub const ALL: [Self; 5] =
        [Self::NotANumber, Self::Infinite, Self::Negative, Self::Sentinel, Self::TooLarge];

    /// The reason's name in labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotANumber => "not_a_number",
            Self::Infinite => "infinite",
            Self::Negative => "negative",
            Self::Sentinel => "sentinel",
            Self::TooLarge => "too_large",
        }
    }
}

impl EncodeLabelValue for DropReason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(self.as_str())
    }
}

/// How many values were not believed, by field and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    counts: [[u32; DropReason::ALL.len()]; Field::COUNT],
    any: bool,
}

impl Drops {
    /// Counts one dropped value.
    pub fn add(&mut self, field: Field, reason: DropReason) {
        let count = &mut self.counts[field as usize][reason as usize];
        *count = count.saturating_add(1);
        self.any = true;
    }

    /// Counts all that another tally counted.
    pub fn merge(&mut self, other: &Self) {
        for (field, reason, count) in other.iter() {
            let own = &mut self.counts[field as usize][reason as usize];
            *own = own.saturating_add(count);
            self.any = true;
        }
    }

    /// Yields every pair that occurred, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Field, DropReason, u32)> {
        let fields: &[Field] = if self.any { &Field::ALL } else { &[] };
        fields.iter().flat_map(move |&field| {
            DropReason::ALL
                .into_iter()
                .map(move |reason| (field, reason, self.counts[field as usize][reason as usize]))
                .filter(|(_, _, count)| *count > 0)
        })
    }

    /// True when nothing was dropped.
    pub fn is_empty(&self) -> bool {
        !self.any
    }
}
