//! Telemetry: what model servers say about themselves, as one canonical [`Sample`] per backend and second.
//!
//! A [`Scraper`] reads the metrics page of every target once per interval. What follows is pure: [`read_page`]
//! turns the text into an [`EngineReading`] by the names of an [`AliasPack`], dropping what no working server could
//! have said, and [`difference`] turns two readings into a [`Sample`]. Every scrape ends in one [`ScrapeOutcome`].

mod alias;
mod body;
mod custom;
mod delta;
mod drift;
mod drops;
mod failure;
mod fetch;
mod field;
mod follow;
#[cfg(test)]
mod golden;
mod gpu;
mod histogram;
mod http;
mod iterations;
mod labels;
mod limits;
mod lookup;
mod metrics;
mod packs;
mod page;
mod parts;
mod prometheus;
mod protobuf;
mod reading;
mod sample;
mod scrape;
mod settings;
mod slots;
mod steps;
mod target;

pub use alias::{Alias, AliasPack, Meaning};
pub use custom::CustomMetrics;
pub use delta::{Difference, difference};
pub use drift::{DriftEvent, DriftWatch, FaultKind, Observation, TelemetryFault};
pub(crate) use drift::{Findings, Inquiry, inquire};
pub use drops::{DropReason, Drops};
pub use failure::{FailureKind, ScrapeFailure};
pub(crate) use fetch::{page_certificates, page_token};
pub use field::{Field, FieldSet, Kind, Timing};
pub use gpu::GpuSelector;
pub use histogram::Buckets;
pub use http::install_crypto_provider;
pub(crate) use http::{client_builder, root_cause};
pub use labels::Labels;
pub use limits::{ConfiguredLimits, LearnedLimits, Limit, LimitSource, Limits};
pub use lookup::{PackChoice, Packs, Source, Spelling};
pub use metrics::TelemetryMetrics;
pub use packs::{DCGM, ENGINES, LLAMACPP, SGLANG, TGI, TRITON, TRTLLM, VLLM};
pub use page::{PageForm, PageReading, read_page};
pub use prometheus::{PageTally, for_each_sample};
pub use protobuf::LabelPair;
pub use reading::EngineReading;
pub use sample::Sample;
pub use scrape::{ScrapeOptions, ScrapeOutcome, Scraper};
pub use target::{GpuPage, PoolTargets, ScrapeTarget};
