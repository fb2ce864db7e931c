//! Configuration: one YAML file, typed, validated as a whole, immutable once loaded.
//!
//! Every fault of a file is reported at once with its line and a snippet. Secrets are never part of the file:
//! it names the environment variables that hold them.

mod balance;
mod document;
mod duration;
mod forecast;
mod gateway;
mod listen;
mod load;
mod model;
mod pool;
mod root;
mod signals;
mod validate;

pub use balance::Balance;
pub use duration::Span;
pub use forecast::Forecast;
pub use gateway::Gateway;
pub use listen::{Database, Listen};
pub use load::{ConfigError, check, load, parse};
pub use model::{Model, Slo, Timeouts};
pub use pool::{Engine, GpuMetrics, Locality, Pool, Replicas};
pub use root::{AccessLog, Config, Telemetry, schema};
pub use signals::{Signals, Webhook};
