use super::field::{Field, Timing};
use super::lookup::{Builder, Source, Spelling};

/// Names of a user's own, which are read before those of the engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomMetrics {
    metrics: Vec<CustomMetric>,
}

#[derive(Clone, Debug, PartialEq)]
struct CustomMetric {
    name: Box<str>,
    field: Field,
    scale: f64,
    only: Vec<(Box<str>, Box<str>)>,
    preference: u16,
}

impl CustomMetrics {
    /// Adds a gauge or counter by its name; a counter's name may stand with or without `_total`.
    pub fn value(&mut self, name: &str, field: Field, scale: f64, only: &[(String, String)]) {
        self.add(name, field, scale, only, 0);
        if field.kind() == super::field::Kind::Counter {
            match name.strip_suffix("_total") {
                Some(bare) => self.add(bare, field, scale, only, 1),
                None => self.add(&format!("{name}_total"), field, scale, only, 1),
            }
        }
    }

    /// Adds a histogram by its name without suffix; `scale` leads to seconds.
    pub fn histogram(&mut self, name: &str, timing: Timing, scale: f64, only: &[(String, String)]) {
        for (suffix, field, scale) in timing.series(scale) {
            self.add(&format!("{name}{suffix}"), field, scale, only, 0);
        }
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    fn add(&mut self, name: &str, field: Field, scale: f64, only: &[(String, String)], preference: u16) {
        let only = only.iter().map(|(label, value)| (label.as_str().into(), value.as_str().into())).collect();
        self.metrics.push(CustomMetric { name: name.into(), field, scale, only, preference });
    }

    pub(super) fn spell(&self, builder: &mut Builder) {
        let gauge = |metric: &&CustomMetric| {
            matches!(metric.field, Field::QueueDepth | Field::Running | Field::KvUsed)
        };
        let promises = self.metrics.iter().filter(gauge).map(|metric| metric.field).collect();
        builder.open("custom", promises, true);
        for metric in &self.metrics {
            let spelling = Spelling {
                field: metric.field,
                scale: metric.scale,
                preference: metric.preference,
                source: Source::Value,
                only: metric.only.clone(),
                steps: None,
                pack: 0,
            };
            builder.add(&metric.name, spelling);
        }
    }
}
