use std::time::Duration;

use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};

use crate::envoy::{predictive_key, shed_key};

use super::ModelIntent;

/// Name of the runtime layer, in Envoys' bootstrap too.
pub const RUNTIME_LAYER: &str = "clairvoy";
/// Envoys that hear nothing of the layer for this time forget it. It has room for a lost heartbeat, and for a way to
/// another replica.
pub const RUNTIME_TTL: Duration = Duration::from_secs(6);

/// The layer with the models whose requests go by predictions, and those of which batch requests are refused. A model that
/// is not in it goes by capacity, and nothing of it is refused. For the Envoys that are steered with shares of proxies of
/// `canary` percent and more; none: for those that are steered with no such share.
pub(super) fn layer(models: &[ModelIntent], canary: Option<u32>) -> Runtime {
    let is_chosen = |model: &&ModelIntent| {
        model.steered_proxies.is_none_or(|percent| canary.is_some_and(|least| least <= percent))
    };
    let steered = models.iter().filter(|model| model.predictive_percent > 0).filter(is_chosen);
    let field = |model: &ModelIntent| {
        let percent = Kind::NumberValue(f64::from(model.predictive_percent.min(100)));
        (predictive_key(&model.name), Value { kind: Some(percent) })
    };
    let refusing = models.iter().filter(|model| model.lanes.batch_refused > 0);
    let refused =
        |model: &ModelIntent| (shed_key(&model.name), millionths(model.lanes.batch_refused.min(1_000_000)));
    let fields = steered.map(field).chain(refusing.map(refused)).collect();
    Runtime { name: RUNTIME_LAYER.to_owned(), layer: Some(Struct { fields }) }
}

/// Other than in percent, it has a draw of its own beside that of the predictions (docs/envoy-balance.md).
fn millionths(numerator: u32) -> Value {
    let value = |kind| Value { kind: Some(kind) };
    let fields = [
        ("numerator".to_owned(), value(Kind::NumberValue(f64::from(numerator)))),
        ("denominator".to_owned(), value(Kind::StringValue("MILLION".to_owned()))),
    ];
    value(Kind::StructValue(Struct { fields: fields.into() }))
}
