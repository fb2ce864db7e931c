use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest name of a region or a zone, characters.
const LONGEST_NAME: usize = 100;

/// A zone of a region, written `region/zone`; either name may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Zone {
    region: String,
    zone: String,
}

/// What names no zone.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0:?} is no zone: write `region/zone`")]
pub struct NotAZone(pub String);

impl Zone {
    /// The zone of these names; none when one of them is longer than 100 characters, or the region's has a `/`.
    pub fn new(region: &str, zone: &str) -> Option<Self> {
        let fits = |name: &str| name.chars().count() <= LONGEST_NAME;
        (fits(region) && fits(zone) && !region.contains('/'))
            .then(|| Self { region: region.to_owned(), zone: zone.to_owned() })
    }

    /// The zone of an Envoy that says that it is there; none when it says nothing, or nothing that can be a name.
    pub fn of_node(region: &str, zone: &str) -> Option<Self> {
        Self::new(region, zone).filter(|zone| !(zone.region.is_empty() && zone.zone.is_empty()))
    }

    /// The name of its region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        &self.zone
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.region, self.zone)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

impl FromStr for Zone {
    type Err = NotAZone;

    fn from_str(text: &str) -> Result<Self, NotAZone> {
        let parts = text.split_once('/').and_then(|(region, zone)| Self::new(region, zone));
        parts.ok_or_else(|| NotAZone(text.to_owned()))
    }
}

impl TryFrom<String> for Zone {
    type Error = NotAZone;

    fn try_from(text: String) -> Result<Self, NotAZone> {
        text.parse()
    }
}
