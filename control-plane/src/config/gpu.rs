use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the GPU gauge of a pool's backends is found.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum GpuMetrics {
    /// `none`, or `same`.
    Place(GpuPlace),
    /// On a page that several backends may share.
    Page(GpuPageSettings),
}

impl Default for GpuMetrics {
    fn default() -> Self {
        Self::Place(GpuPlace::Same)
    }
}

/// A place that needs no more settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GpuPlace {
    /// No GPU gauge.
    None,
    /// On the engine's own metrics page.
    Same,
}

/// A page with GPU gauges, and which of them are whose.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GpuPageSettings {
    /// The page, usually the DCGM exporter's: a URL in which `{host}` and `{port}` are the backend's. Left out: the
    /// engine's own page.
    pub url: Option<String>,
    /// Labels that a gauge must have to be of a backend; `{host}` and `{port}` in a value are the backend's. Left out:
    /// all gauges of the page.
    pub labels: BTreeMap<String, LabelValues>,
    /// The same for single backends, by `ip:port`, instead of `labels`.
    pub backends: BTreeMap<String, BTreeMap<String, LabelValues>>,
}

/// One value of a label, or several of which any will do.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum LabelValues {
    /// One.
    One(LabelValue),
    /// Any of them.
    Any(Vec<LabelValue>),
}

/// A value as it may be written: GPUs have numbers.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum LabelValue {
    /// A number.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl LabelValues {
    /// Yields the values as a page shows them.
    pub fn iter(&self) -> impl Iterator<Item = String> {
        let values = match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Any(values) => values,
        };
        values.iter().map(|value| match value {
            LabelValue::Number(number) => number.to_string(),
            LabelValue::Text(text) => text.clone(),
        })
    }
}
