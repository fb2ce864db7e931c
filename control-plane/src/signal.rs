//! Signals: replica plans, told to autoscalers before the load is there.
//!
//! A [`ReplicaPlanEvent`] becomes one JSON body that is a structured CloudEvent, signed by the Standard Webhooks
//! scheme. A [`Deliverer`] takes it to every configured endpoint: with retries, never after the plan has expired, and
//! never an older plan of a pool once a newer one is there.

mod deliver;
mod event;
mod metrics;
mod post;
mod queue;
mod report;
mod retry;
mod signature;
mod target;

pub use deliver::{Deliverer, DeliveryOptions, DeliveryStatus, EndpointStatus, WebhookEndpoint};
pub use event::{EVENT_TYPE, ReplicaPlanEvent};
pub use metrics::SignalMetrics;
pub use report::{DeliveryLog, DeliveryOutcome, DeliveryReport};
pub use signature::{Secret, SecretError, SignatureError, TOLERANCE_SECONDS};
pub use target::{RefusedAddress, TargetError, check_address, check_url};
