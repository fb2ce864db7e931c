//! Versions of resources: a hash of the content.

use std::fmt;
use std::time::Duration;

use twox_hash::XxHash3_128;

/// The version of a resource: the XXH3-128 hash of its encoded `Any`, written as 32 hexadecimal digits.
///
/// Equal content has an equal version, in every process and after every restart, so that a client that
/// comes back is sent only what changed, wherever it lands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u128);

impl Version {
    pub(crate) fn of(content: &[u8]) -> Self {
        Self(XxHash3_128::oneshot(content))
    }

    /// Reads a version that a client sent. One that this library did not write becomes a hash of its
    /// text, which is equal to no version of a resource.
    pub(crate) fn from_client(text: &str) -> Self {
        match u128::from_str_radix(text, 16) {
            Ok(value) if text.len() == 32 => Self(value),
            _ => Self::of(format!("foreign version {text}").as_bytes()),
        }
    }

    /// The version of the same content with a TTL. Another TTL makes another version, since clients have to be
    /// told of it.
    pub(crate) fn with_ttl(self, ttl: Duration) -> Self {
        Self::of(&[&self.to_bytes()[..], &ttl.as_nanos().to_be_bytes()].concat())
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}
