//! Settings that proxies accept and then ignore, or take for something else.

use envoy_types::pb::envoy::config::route::v3::{RateLimit, RetryPolicy};
use envoy_types::pb::google::protobuf::{UInt32Value, UInt64Value};

use crate::resource_type::ResourceType;
use crate::snapshot::fault::Fault;

/// Conditions that Envoy knows in `retry_on`. Others it ignores.
const RETRY_CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "retriable-headers",
    "envoy-ratelimited",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// Envoy's largest ring, and the least size of a ring where a cluster says none.
const MAX_RING_SIZE: u64 = 8 * 1024 * 1024;
const DEFAULT_MINIMUM_RING_SIZE: u64 = 1024;

pub(in crate::snapshot) fn retry_conditions(
    resource_type: ResourceType,
    resource: &str,
    policy: &RetryPolicy,
) -> Vec<Fault> {
    let conditions = policy.retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty());
    conditions
        .filter(|condition| !RETRY_CONDITIONS.contains(condition))
        .map(|condition| Fault::UnknownRetryCondition {
            resource_type,
            resource: resource.to_owned(),
            condition: condition.to_owned(),
        })
        .collect()
}

/// Envoy reads `hits_addend` only in the settings of the rate limit filter, not in `rate_limits` of a route
/// or a virtual host.
pub(in crate::snapshot) fn hits_addend(
    resource_type: ResourceType,
    resource: &str,
    within: &str,
    limit: &RateLimit,
) -> Option<Fault> {
    limit.hits_addend.as_ref()?;
    let of = match within {
        "envoy.config.route.v3.RouteAction" => "a route",
        "envoy.config.route.v3.VirtualHost" => "a virtual host",
        _ => return None,
    };
    Some(Fault::IgnoredField {
        resource_type,
        resource: resource.to_owned(),
        field: format!("hits_addend in rate_limits of {of}"),
        instead: "rate_limits of a RateLimitPerRoute in typed_per_filter_config",
    })
}

/// Envoy takes a choice among fewer than two hosts, and then balances nothing.
pub(in crate::snapshot) fn choice_count(cluster: &str, count: Option<UInt32Value>) -> Option<Fault> {
    let count = count.filter(|count| count.value < 2)?;
    Some(Fault::OutOfRange {
        resource_type: ResourceType::Cluster,
        resource: cluster.to_owned(),
        field: "choice_count of least request",
        value: count.value.to_string(),
        allowed: "at least 2",
    })
}

pub(in crate::snapshot) fn ring_size(
    cluster: &str,
    minimum: Option<UInt64Value>,
    maximum: Option<UInt64Value>,
) -> Option<Fault> {
    let minimum = minimum.map_or(DEFAULT_MINIMUM_RING_SIZE, |minimum| minimum.value);
    let maximum = maximum.map_or(MAX_RING_SIZE, |maximum| maximum.value);
    (minimum > maximum).then(|| Fault::OutOfRange {
        resource_type: ResourceType::Cluster,
        resource: cluster.to_owned(),
        field: "minimum_ring_size",
        value: minimum.to_string(),
        allowed: "at most maximum_ring_size (default minimum 1024, maximum 8388608)",
    })
}
