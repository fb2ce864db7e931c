//! Telemetry: what model servers say about themselves, as one canonical [`Sample`] per backend and second.
//!
//! A [`Scraper`] reads the metrics page of every target once per interval. What follows is pure: [`read_page`]
//! turns the text into an [`EngineReading`] by the names of an [`AliasPack`], dropping what no working server could
//! have said, and [`difference`] turns two readings into a [`Sample`]. Every scrape ends in one [`ScrapeOutcome`].

mod alias;
mod delta;
mod failure;
mod fetch;
mod field;
mod follow;
mod http;
mod metrics;
mod page;
mod prometheus;
mod sample;
mod scrape;
mod target;

pub use alias::{Alias, AliasPack, DCGM, VLLM};
pub use delta::{Difference, difference};
pub use failure::{FailureKind, ScrapeFailure};
pub use field::{DropReason, Drops, Field};
pub use http::install_crypto_provider;
pub(crate) use http::{client_builder, root_cause};
pub use metrics::TelemetryMetrics;
pub use page::{EngineReading, PageReading, read_page};
pub use prometheus::{Labels, PageTally, for_each_sample};
pub use sample::Sample;
pub use scrape::{ScrapeOptions, ScrapeOutcome, Scraper};
pub use target::{GpuPage, ScrapeTarget};
