use super::field::{Field, Timing};

/// One spelling of one quantity, by the name of its metric family.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alias {
    /// Name of the family, as the engine documents it.
    pub family: &'static str,
    /// What it means.
    pub meaning: Meaning,
    /// Of several spellings on one page the one with the lowest preference is read.
    pub preference: u8,
    /// What a value is multiplied with to reach the field's unit.
    pub scale: f64,
    /// Only series with this label and value.
    pub only: Option<(&'static str, &'static str)>,
    /// The label that tells apart the models that one request runs through; each of them counts it.
    pub steps: Option<&'static str>,
}

/// What the series of a family mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meaning {
    /// Their values, under just this name.
    Value(Field),
    /// Their values, with or without `_total` behind the name: client libraries add it.
    Counter(Field),
    /// A histogram: `_sum`, `_count`, and `_bucket` where quantiles are kept.
    Histogram(Timing),
    /// A number in a label of the series.
    Label(Field, &'static str),
}

/// The spellings of one engine or exporter. A further engine is a further pack, not further code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AliasPack {
    /// Name of the engine or exporter.
    pub name: &'static str,
    /// Its spellings; a field may have several.
    pub aliases: &'static [Alias],
    /// Fields that every version of it exports from its start on: one of these missing is a change of names.
    pub promises: &'static [Field],
}

impl Alias {
    const fn new(family: &'static str, meaning: Meaning) -> Self {
        Self { family, meaning, preference: 0, scale: 1.0, only: None, steps: None }
    }

    /// Values under exactly this name.
    pub const fn value(family: &'static str, field: Field) -> Self {
        Self::new(family, Meaning::Value(field))
    }

    /// A counter; its name without `_total`.
    pub const fn counter(family: &'static str, field: Field) -> Self {
        Self::new(family, Meaning::Counter(field))
    }

    /// A histogram of times.
    pub const fn histogram(family: &'static str, timing: Timing) -> Self {
        Self::new(family, Meaning::Histogram(timing))
    }

    /// A number in a label.
    pub const fn label(family: &'static str, label: &'static str, field: Field) -> Self {
        Self::new(family, Meaning::Label(field, label))
    }

    /// The same with another preference; 0 is read first.
    #[must_use]
    pub const fn or(self, preference: u8) -> Self {
        Self { preference, ..self }
    }

    /// The same in another unit.
    #[must_use]
    pub const fn scaled(self, scale: f64) -> Self {
        Self { scale, ..self }
    }

    /// The same for series with one label value.
    #[must_use]
    pub const fn only(self, label: &'static str, value: &'static str) -> Self {
        Self { only: Some((label, value)), ..self }
    }

    /// The same where each model that a request runs through counts it.
    #[must_use]
    pub const fn steps(self, label: &'static str) -> Self {
        Self { steps: Some(label), ..self }
    }
}
