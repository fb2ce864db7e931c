use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::report::DeliveryOutcome;

/// What signals count about themselves; clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct SignalMetrics {
    pub(super) attempts: Counter,
    webhooks: Family<OutcomeLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: Final,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Final {
    Delivered,
    Failed,
    Expired,
    Superseded,
    Disabled,
    Dropped,
}

impl Final {
    fn of(outcome: DeliveryOutcome) -> Option<Self> {
        match outcome {
            DeliveryOutcome::Delivered => Some(Self::Delivered),
            DeliveryOutcome::Retrying(_) => None,
            DeliveryOutcome::Failed => Some(Self::Failed),
            DeliveryOutcome::Expired => Some(Self::Expired),
            DeliveryOutcome::Superseded => Some(Self::Superseded),
            DeliveryOutcome::Disabled => Some(Self::Disabled),
            DeliveryOutcome::Dropped => Some(Self::Dropped),
        }
    }
}

impl EncodeLabelValue for Final {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::Disabled => "disabled",
            Self::Dropped => "dropped",
        })
    }
}

impl SignalMetrics {
    /// Registers all series as `clairvoy_signal_…` in a registry that has no prefix of its own.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("clairvoy_signal");
        registry.register("attempts", "Webhook requests that were sent", metrics.attempts.clone());
        registry.register("webhooks", "Events per endpoint that came to an end", metrics.webhooks.clone());
        metrics
    }

    pub(super) fn ended(&self, outcome: DeliveryOutcome) {
        if let Some(outcome) = Final::of(outcome) {
            self.webhooks.get_or_create(&OutcomeLabels { outcome }).inc();
        }
    }

    pub(super) fn count(&self, outcome: Final) -> u64 {
        self.webhooks.get(&OutcomeLabels { outcome }).map_or(0, |count| count.get())
    }
}
