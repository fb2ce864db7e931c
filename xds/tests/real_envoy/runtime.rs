//! Runtime layers.

use std::time::{Duration, Instant};

use clairvoy_xds::{Snapshot, SnapshotBuilder};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};

use crate::for_each_variant;
use crate::proxy::{Envoy, RUNTIME_LAYER};
use crate::serving::{Serving, eventually};
use crate::stack::Site;

const KEY: &str = "test.share";

/// A state with nothing but a layer with one key.
fn layer(value: f64) -> Snapshot {
    let value = Value { kind: Some(Kind::NumberValue(value)) };
    let layer = Struct { fields: [(KEY.to_owned(), value)].into() };
    let mut builder = SnapshotBuilder::new();
    builder.runtime(Runtime { name: RUNTIME_LAYER.into(), layer: Some(layer) });
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_t1_a_runtime_layer_is_there_from_the_start_and_changes() {
    for_each_variant(async |subscription| {
        let site = Site::start(subscription, layer(25.0)).await;
        assert_eq!(site.envoy.runtime(KEY).await.as_deref(), Some("25"));

        site.publish(layer(50.0)).await;
        let changed = async || site.envoy.runtime(KEY).await.as_deref() == Some("50");
        eventually("the layer changes", changed).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_d5_s10_a_runtime_layer_that_does_not_exist_holds_nothing_up() {
    for_each_variant(async |subscription| {
        let nothing = SnapshotBuilder::new().build().unwrap();
        let serving = Serving::start(nothing).await;
        let start = Instant::now();
        let envoy = Envoy::start(serving.address, subscription).await;
        eventually("Envoy starts", async || envoy.is_live().await).await;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(5), "it took {took:?}");
        println!("started in {took:?}");

        // It comes later, without being asked for again.
        serving.publish(layer(75.0));
        let there = async || envoy.runtime(KEY).await.as_deref() == Some("75");
        eventually("the layer comes to be", there).await;
    })
    .await;
}
