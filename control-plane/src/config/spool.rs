use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Where telemetry waits on disk while the database is away, or slower than it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Most bytes on disk; beyond it the oldest telemetry is dropped (default `1GiB`, about an hour and a half of 2,000
    /// backends). `0B` for no spool.
    pub bytes: Size,
    /// Folder for it; one Clairvoy uses it at a time. Left out: `spool` in `data_dir`.
    pub dir: Option<PathBuf>,
}

impl Default for Spool {
    fn default() -> Self {
        Self { bytes: Size(1024 * 1024 * 1024), dir: None }
    }
}

impl Spool {
    /// The smallest that is of use: a few batches.
    const LEAST: u64 = 16 * 1024 * 1024;

    /// What is wrong with it, if anything is.
    pub(super) fn fault(&self) -> Option<String> {
        let is_useful = self.bytes.0 == 0 || self.bytes.0 >= Self::LEAST;
        (!is_useful).then(|| format!("{} is less than {}; 0B for no spool", self.bytes, Size(Self::LEAST)))
    }
}

/// A number of bytes, written with its unit: `64MiB`, `1GiB`, `500MB`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        bytesize::ByteSize(self.0).display().iec().fmt(formatter)
    }
}

impl fmt::Debug for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse::<bytesize::ByteSize>().map(|size| Self(size.as_u64())).map_err(|error| {
            D::Error::custom(format!("{text:?} is no number of bytes ({error}); write 64MiB or 1GiB"))
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A number of bytes with its unit: 64MiB, 1GiB, 500MB.",
            "examples": ["64MiB", "1GiB"],
        })
    }
}
