use std::time::Duration;

use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use crate::envoy::predictive_key;

use super::ModelIntent;

/// Name of the runtime layer, in Envoys' bootstrap too.
pub const RUNTIME_LAYER: &str = "clairvoy";
/// Envoys that hear nothing of the layer for this time forget it. It has room for a lost heartbeat, and for a way to
/// another replica.
pub const RUNTIME_TTL: Duration = Duration::from_secs(6);

/// The layer with the models whose requests go by predictions. A model that is not in it goes by capacity.
pub(super) fn layer(models: &[ModelIntent]) -> Runtime {
    let steered = models.iter().filter(|model| model.predictive_percent > 0);
    let field = |model: &ModelIntent| {
        let percent = Kind::NumberValue(f64::from(model.predictive_percent.min(100)));
        (predictive_key(&model.name), Value { kind: Some(percent) })
    };
    Runtime { name: RUNTIME_LAYER.to_owned(), layer: Some(Struct { fields: steered.map(field).collect() }) }
}
