//! What is measured: a scenario with request sizes at a load.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::history::{RequestSize, SeriesError, heavy_request_sizes, request_sizes};

use super::fleet::{Machine, machines, machines_alike};

/// Recorded request sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SizeSet {
    /// A code-completion service: prompts of about 2,000 tokens, short answers.
    Code,
    /// A chat service: prompts with a heavy tail, about 9,000 tokens, long answers.
    Heavy,
}

impl SizeSet {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Code, Self::Heavy];

    /// The sizes.
    ///
    /// # Errors
    /// When the compiled-in data is damaged.
    pub fn sizes(self) -> Result<Arc<[RequestSize]>, SeriesError> {
        Ok(match self {
            Self::Code => request_sizes()?.into(),
            Self::Heavy => heavy_request_sizes()?.into(),
        })
    }

    /// The other set.
    #[must_use]
    pub fn other(self) -> Self {
        if self == Self::Code { Self::Heavy } else { Self::Code }
    }

    /// The name in the names of cells.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Heavy => "heavy",
        }
    }
}

/// What happens while requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scenario {
    /// Nothing.
    Steady,
    /// Halfway the sizes become those of the other set, at the same part of the capacity for them.
    Mix,
    /// After a quarter one of the fastest backends becomes four times slower and says nothing.
    Slow,
    /// One of the fastest backends is not there until a quarter has passed.
    Join,
    /// After a quarter the demand doubles for a minute.
    Surge,
    /// After a quarter a zone dies: one backend of each class.
    Zone,
    /// Nothing, on machines that are all alike.
    Alike,
}

impl Scenario {
    /// Every scenario.
    pub const ALL: [Self; 7] =
        [Self::Steady, Self::Mix, Self::Slow, Self::Join, Self::Surge, Self::Zone, Self::Alike];

    /// The name in the names of cells.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Mix => "mix",
            Self::Slow => "slow",
            Self::Join => "join",
            Self::Surge => "surge",
            Self::Zone => "zone",
            Self::Alike => "alike",
        }
    }
}

/// A scenario with request sizes at a load, written `slow-code-0.70`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cell {
    /// What happens.
    pub scenario: Scenario,
    /// The sizes at the beginning.
    pub sizes: SizeSet,
    /// Part of the fleet's measured capacity for these sizes that is asked for.
    pub load: f64,
}

impl Cell {
    /// The cells of a whole run.
    pub fn all() -> Vec<Self> {
        use Scenario::{Alike, Join, Mix, Slow, Steady, Surge, Zone};
        use SizeSet::{Code, Heavy};
        let of = |scenario, sizes, loads: &'static [f64]| {
            loads.iter().map(move |&load| Self { scenario, sizes, load })
        };
        of(Steady, Code, &[0.2, 0.3, 0.4, 0.5, 0.7, 0.85, 0.95])
            .chain(of(Steady, Heavy, &[0.7, 0.85]))
            .chain(of(Mix, Code, &[0.7, 0.85]))
            .chain(of(Slow, Code, &[0.7, 0.85]))
            .chain(of(Slow, Heavy, &[0.7]))
            .chain(of(Join, Code, &[0.7, 0.85]))
            .chain(of(Surge, Code, &[0.5]))
            .chain(of(Zone, Code, &[0.7]))
            .chain(of(Alike, Code, &[0.85]))
            .collect()
    }

    /// The cells of a quick run.
    pub fn quick() -> Vec<Self> {
        [(Scenario::Steady, 0.85), (Scenario::Slow, 0.7), (Scenario::Mix, 0.7)]
            .map(|(scenario, load)| Self { scenario, sizes: SizeSet::Code, load })
            .to_vec()
    }

    /// The machines that it is played on.
    pub fn machines(&self) -> Vec<Machine> {
        if self.scenario == Scenario::Alike { machines_alike() } else { machines() }
    }

    /// True when, at least for a while, as many requests come as the fleet holds, or nearly: somebody has to miss his objective.
    pub fn is_beyond_capacity(&self) -> bool {
        self.load > 0.85 || self.scenario == Scenario::Surge
    }

    /// True for a load so low that plain round robin may still hold: measured only to find how much it holds.
    pub fn is_probe(&self) -> bool {
        self.load < 0.5
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:.2}", self.scenario.name(), self.sizes.name(), self.load)
    }
}

/// A name that is no cell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cell: give SCENARIO-SIZES-LOAD, as in slow-code-0.70")]
pub struct InvalidCell(String);

impl FromStr for Cell {
    type Err = InvalidCell;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let mut parts = text.split('-');
            let (scenario, sizes, load) = (parts.next()?, parts.next()?, parts.next()?);
            let load = load.parse::<f64>().ok().filter(|load| *load > 0.0 && *load <= 2.0)?;
            let scenario = Scenario::ALL.into_iter().find(|known| known.name() == scenario)?;
            let sizes = SizeSet::ALL.into_iter().find(|known| known.name() == sizes)?;
            parts.next().is_none().then_some(Self { scenario, sizes, load })
        };
        read().ok_or_else(|| InvalidCell(text.to_owned()))
    }
}

impl From<Cell> for String {
    fn from(cell: Cell) -> Self {
        cell.to_string()
    }
}

impl TryFrom<String> for Cell {
    type Error = InvalidCell;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_read_as_they_are_written() {
        for cell in Cell::all().into_iter().chain(Cell::quick()) {
            assert_eq!(cell.to_string().parse(), Ok(cell));
        }
    }

    #[test]
    fn what_is_no_cell_is_named() {
        for text in ["", "steady", "steady-code-x", "steady-code-0.7-1", "calm-code-0.7", "mix-code-0"] {
            let error = text.parse::<Cell>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
