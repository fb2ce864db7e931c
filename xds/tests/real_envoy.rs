//! The server and a real Envoy: the one of `CLAIRVOY_ENVOY`, or the one that the set-up has fetched.
//!
//! Each scenario is run for every variant of the protocol that the server serves.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "peers/resources.rs"]
mod resources;
#[path = "peers/served.rs"]
mod served;
#[path = "peers/serving.rs"]
mod serving;

#[path = "real_envoy/changes.rs"]
mod changes;
#[path = "real_envoy/faults.rs"]
mod faults;
#[path = "real_envoy/http.rs"]
mod http;
#[path = "real_envoy/load.rs"]
mod load;
#[path = "real_envoy/proxy.rs"]
mod proxy;
#[path = "real_envoy/runtime.rs"]
mod runtime;
#[path = "real_envoy/secrets.rs"]
mod secrets;
#[path = "real_envoy/services.rs"]
mod services;
#[path = "real_envoy/stack.rs"]
mod stack;

use self::served::Subscription;

/// Runs a scenario for each variant over the aggregated service.
async fn for_each_variant(scenario: impl AsyncFn(Subscription)) {
    for subscription in served::served(|subscription| subscription.aggregated) {
        println!("with {subscription:?}");
        scenario(subscription).await;
    }
}
