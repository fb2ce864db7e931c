//! Configuration: one YAML file, typed, validated as a whole, immutable once loaded.
//!
//! Every fault of a file is reported at once with its line and a snippet. Secrets are never part of the file:
//! it names the environment variables that hold them.

mod balance;
mod canary;
mod discovery;
mod document;
mod duration;
mod envoy;
mod forecast;
mod gateway;
mod gpu;
mod health;
mod lanes;
mod listen;
mod load;
mod metrics;
mod model;
mod orca;
mod policy;
mod pool;
mod push;
mod retention;
mod root;
mod signals;
mod spool;
mod tls;
mod token;
mod validate;
mod zones;

pub use balance::Balance;
pub use canary::{Canary, CanaryBy, proxy_number};
pub use discovery::{Discovery, DnsDiscovery, DnsRecord, Refresh};
pub use duration::Span;
pub use envoy::{AccessLog, IntakeLimits, LoadReports, MetadataKey, TokenSource};
pub use forecast::Forecast;
pub use gateway::Gateway;
pub use gpu::{GpuMetrics, GpuPageSettings, GpuPlace, LabelValue, LabelValues};
pub use health::{HealthChecks, OutlierDetection};
pub use lanes::{LaneRules, MaxRequests, ModelLane, Shedding};
pub use listen::{Database, Listen};
pub use load::{ConfigError, check, load, parse};
pub use metrics::{EngineLimits, HistogramDetails, HistogramName, MetricDetails, MetricName, MetricNames};
pub use model::{Model, Rung, Slo, Timeouts};
pub use orca::Orca;
pub use policy::{HashOn, ModelBalance, Policy};
pub use pool::{Engine, Locality, MetricsAccess, Pool, PoolTelemetry, Replicas};
pub use push::Push;
pub use retention::RetentionPeriods;
pub use root::{Config, Telemetry, schema};
pub use signals::{Signals, Webhook};
pub use spool::{Size, Spool};
pub use tls::{GatewayClient, ListenerTls, PoolClient, is_named};
pub use token::PoolToken;
pub use zones::{Rtt, Zones};
