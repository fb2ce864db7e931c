use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::FixedState;

use super::alias::{Alias, AliasPack, Meaning};
use super::custom::CustomMetrics;
use super::field::{Field, FieldSet};
use super::packs::{DCGM, ENGINES, TRTLLM};

/// What the series of one name mean; one name may mean several things.
///
/// For a stream of points: [`Packs::resolve`] the name, leave out the spellings whose [`only`](Self::only) the point's
/// labels do not have, take the number from where [`source`](Self::source) says, multiply it with the scale, and ask
/// [`Field::believe`]. Where several spellings of a field are seen, that of the lowest preference counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Spelling {
    /// The canonical quantity.
    pub field: Field,
    /// What a value is multiplied with to reach the field's unit; of buckets, their edge.
    pub scale: f64,
    /// Of several spellings of a field the lowest is read.
    pub preference: u16,
    /// Where the number is.
    pub source: Source,
    /// Only series with these labels.
    pub only: Vec<(Box<str>, Box<str>)>,
    /// The label that tells apart the models that one request runs through: only one of them counts.
    pub steps: Option<Box<str>>,
    pub(super) pack: u8,
}

/// Where a series has the number that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is its value. Of a bucket the label `le` is the upper edge.
    Value,
    /// It stands in a label.
    Label(Box<str>),
}

/// Tables of names, ready to be asked: one hash lookup for a name, known or not.
#[derive(Clone, Debug, Default)]
pub struct Packs {
    pub(crate) names: HashMap<Box<str>, Range<usize>, FixedState>,
    /// Those of one name in a row.
    pub(crate) spellings: Vec<Spelling>,
    pub(super) packs: Vec<PackInfo>,
    /// What the backend serves; none where that is not known.
    pub(super) model: Option<Box<str>>,
}

/// What is kept of a pack.
#[derive(Clone, Debug)]
pub(super) struct PackInfo {
    pub(super) name: &'static str,
    pub(super) promises: Vec<Field>,
    /// Read beside whatever engine the page is of.
    pub(super) always: bool,
}

/// Which names are read from a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PackChoice {
    /// The engine; none: whichever one fits the page best.
    pub engines: Option<Vec<&'static AliasPack>>,
    /// Whether DCGM's GPU gauge may be on the page.
    pub gpu: bool,
    /// Names of the user's own, read before those of the engine.
    pub custom: Option<CustomMetrics>,
    /// What the backend serves, for engines that count a request once for each model that it runs through.
    pub model: Option<String>,
}

impl Packs {
    /// Builds the tables for a choice of names.
    pub fn new(choice: &PackChoice) -> Self {
        Self::build(choice).finish()
    }

    /// The same with a further pack, which is read beside the engine's for what that lacks.
    pub fn with_beside(choice: &PackChoice, beside: &'static AliasPack) -> Self {
        let mut builder = Self::build(choice);
        builder.behind = BESIDE_PREFERENCE;
        builder.pack(beside, true);
        builder.finish()
    }

    fn build(choice: &PackChoice) -> Builder {
        let mut builder = Builder { model: choice.model.as_deref().map(Into::into), ..Builder::default() };
        if let Some(custom) = &choice.custom {
            custom.spell(&mut builder);
        }
        match &choice.engines {
            Some(engines) => engines.iter().for_each(|pack| builder.pack(pack, false)),
            None => ENGINES.iter().for_each(|pack| builder.pack(pack, false)),
        }
        if choice.gpu {
            builder.pack(&DCGM, true);
        }
        builder
    }

    /// The tables of some engines, with the GPU gauge.
    pub fn of(engines: &[&'static AliasPack]) -> Self {
        Self::new(&PackChoice { engines: Some(engines.to_vec()), gpu: true, ..PackChoice::default() })
    }

    /// The tables of all engines, with the GPU gauge.
    pub fn all() -> Self {
        Self::new(&PackChoice { gpu: true, ..PackChoice::default() })
    }

    /// Returns what the series of a name mean; nothing for an unknown name.
    pub fn resolve(&self, name: &str) -> &[Spelling] {
        self.range(name).map_or(&[], |range| &self.spellings[range])
    }

    /// Fields that an engine promises, and those that the user named.
    pub(crate) fn promises(&self, engine: Option<&str>) -> FieldSet {
        let counts = |pack: &&PackInfo| pack.always || Some(pack.name) == engine;
        self.packs.iter().filter(counts).flat_map(|pack| pack.promises.iter().copied()).collect()
    }

    /// Tells whether an engine whose page may be JSON is among them.
    pub(super) fn reads_json(&self) -> bool {
        self.packs.iter().any(|pack| pack.name == TRTLLM.name)
    }

    /// Returns the indices of a name's spellings.
    pub(super) fn range(&self, name: &str) -> Option<Range<usize>> {
        self.names.get(name).cloned()
    }

    pub(super) fn spellings(&self) -> &[Spelling] {
        &self.spellings
    }

    /// All names, in no order.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(|name| &**name)
    }

    /// All names of a field, in no order.
    pub(super) fn names_of(&self, field: Field) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .filter(move |(_, range)| {
                self.spellings[(*range).clone()].iter().any(|known| known.field == field)
            })
            .map(|(name, _)| &**name)
    }
}

/// Collects spellings by name.
#[derive(Default)]
pub(super) struct Builder {
    named: HashMap<Box<str>, Vec<Spelling>>,
    packs: Vec<PackInfo>,
    model: Option<Box<str>>,
    /// Added to preferences from now on.
    behind: u16,
}

/// Preferences of packs begin here; those of users come before.
const PACK_PREFERENCE: u16 = 16;
/// Preferences of a pack beside the engine's; more than those have.
const BESIDE_PREFERENCE: u16 = 1024;

impl Builder {
    fn pack(&mut self, pack: &AliasPack, always: bool) {
        self.open(pack.name, pack.promises.to_vec(), always);
        for alias in pack.aliases {
            self.alias(alias);
        }
    }

    /// Begins a pack; what is added from now on belongs to it.
    pub(super) fn open(&mut self, name: &'static str, promises: Vec<Field>, always: bool) {
        self.packs.push(PackInfo { name, promises, always });
    }

    fn alias(&mut self, alias: &Alias) {
        let preference = PACK_PREFERENCE + self.behind + 2 * u16::from(alias.preference);
        let only: Vec<(Box<str>, Box<str>)> =
            alias.only.iter().map(|(label, value)| ((*label).into(), (*value).into())).collect();
        let spelling = |field, preference| Spelling {
            field,
            scale: alias.scale,
            preference,
            source: Source::Value,
            only: only.clone(),
            steps: alias.steps.map(Into::into),
            pack: 0,
        };
        match alias.meaning {
            Meaning::Value(field) => self.add(alias.family, spelling(field, preference)),
            Meaning::Counter(field) => {
                self.add(&format!("{}_total", alias.family), spelling(field, preference));
                self.add(alias.family, spelling(field, preference + 1));
            }
            Meaning::Histogram(timing) => {
                for (suffix, field, scale) in timing.series(alias.scale) {
                    let spelling = Spelling { scale, ..spelling(field, preference) };
                    self.add(&format!("{}{suffix}", alias.family), spelling);
                }
            }
            Meaning::Label(field, label) => {
                let spelling =
                    Spelling { source: Source::Label(label.into()), ..spelling(field, preference) };
                self.add(alias.family, spelling);
            }
        }
    }

    /// Adds a spelling to the pack that was opened last.
    pub(super) fn add(&mut self, name: &str, spelling: Spelling) {
        let pack = u8::try_from(self.packs.len().saturating_sub(1)).unwrap_or(u8::MAX);
        self.named.entry(name.into()).or_default().push(Spelling { pack, ..spelling });
    }

    fn finish(self) -> Packs {
        let mut packs = Packs { packs: self.packs, model: self.model, ..Packs::default() };
        for (name, mut spellings) in self.named {
            let from = packs.spellings.len();
            packs.spellings.append(&mut spellings);
            packs.names.insert(name, from..packs.spellings.len());
        }
        packs
    }
}

#[cfg(test)]
mod tests;
