//! Discovery: backends that are found in DNS, and backends that register themselves for a time.
//!
//! `merge` and `Lease` decide, from values and a given `now`; `watch` asks DNS, in a task for each pool. What is found
//! never empties a pool: an answer without backends, or none, keeps the last good ones and is told.

mod answer;
mod lease;
mod lookup;
mod merge;
mod metrics;
mod networks;
mod schedule;
mod watch;

pub use answer::{Answer, LookupFailure};
pub use lease::Lease;
pub(crate) use lookup::MOST as MOST_FOUND;
pub use merge::{Found, Merged, merge};
pub(crate) use metrics::DiscoveryMetrics;
pub use networks::{check_address, networks};
pub(crate) use watch::{Looked, watch};

#[cfg(test)]
mod tests;
