use std::collections::BTreeMap;

use super::drops::Drops;
use super::field::Field;
use super::parts::Parts;

/// Models that are told apart; what more there are count as one.
const MOST_MODELS: usize = 256;

/// Counts of the models that requests run through. One model stands for all: the one that the backend serves; else those
/// whose names say that they call the others; else the one that counted most.
#[derive(Default)]
pub(super) struct Steps {
    /// By spelling.
    held: BTreeMap<usize, BTreeMap<Step, Parts>>,
    chosen: Option<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// What the backend serves.
    Served,
    /// What calls other models, by its name.
    Caller,
    Other(Box<str>),
}

impl Step {
    fn of(name: &str, served: Option<&str>) -> Self {
        let bare = |name: &'_ str| name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let lower = bare(name);
        if served.is_some_and(|served| bare(served) == lower) {
            Self::Served
        } else if lower.contains("ensemble") || lower.ends_with("_bls") {
            Self::Caller
        } else {
            Self::Other(name.into())
        }
    }
}

impl Steps {
    /// The parts of a spelling for one model.
    pub(super) fn of(&mut self, spelling: usize, model: Option<&str>, served: Option<&str>) -> &mut Parts {
        let held = self.held.entry(spelling).or_default();
        let mut step = Step::of(model.unwrap_or_default(), served);
        if held.len() >= MOST_MODELS && !held.contains_key(&step) {
            step = Step::Other(Box::default());
        }
        held.entry(step).or_default()
    }

    /// Chooses the model that counts, by the spellings that count requests.
    pub(super) fn choose(&mut self, counts: impl Fn(usize) -> bool) {
        let counted = self.held.iter().filter(|(spelling, _)| counts(**spelling)).map(|(_, held)| held);
        self.chosen = counted.filter_map(best).min();
    }

    /// The parts that count of a spelling; none where it has no models.
    pub(super) fn chosen(&mut self, spelling: usize) -> Option<&mut Parts> {
        let held = self.held.get_mut(&spelling)?;
        let step = self.chosen.clone().filter(|step| held.contains_key(step)).or_else(|| best(held))?;
        held.get_mut(&step)
    }
}

/// The first of those that are named, else the one with the largest value.
fn best(held: &BTreeMap<Step, Parts>) -> Option<Step> {
    let named = held.keys().next().filter(|step| !matches!(step, Step::Other(_)));
    let value = |parts: &Parts| {
        parts.join(Field::Completed, &mut Drops::default()).map_or(f64::NEG_INFINITY, |joined| joined.value)
    };
    let largest = || held.iter().max_by(|(_, one), (_, other)| value(one).total_cmp(&value(other)));
    named.or_else(|| largest().map(|(step, _)| step)).cloned()
}
