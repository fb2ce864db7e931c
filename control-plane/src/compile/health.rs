use envoy_types::pb::envoy::config::cluster::v3::OutlierDetection;
use envoy_types::pb::envoy::config::core::v3::{HealthCheck, health_check};
use envoy_types::pb::envoy::r#type::v3::Int64Range;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};

use crate::config;

use super::CheckIntent;
use super::proto::span;

/// By default Envoy would send the cluster's name, and a model's name is no name of a host.
const HOST: &str = "localhost";
/// Envoys that began together do not go on so.
const JITTER_PERCENT: u32 = 10;

/// Active checks of a cluster's endpoints.
pub(super) fn check(check: &CheckIntent) -> HealthCheck {
    let http = health_check::HttpHealthCheck {
        host: HOST.to_owned(),
        path: check.path.clone(),
        // Any other status counts towards the threshold; by default the first one takes a backend out.
        retriable_statuses: vec![Int64Range { start: 100, end: 600 }],
        ..health_check::HttpHealthCheck::default()
    };
    HealthCheck {
        timeout: Some(span(check.timeout)),
        interval: Some(span(check.interval)),
        // By default a cluster without traffic is checked once a minute.
        no_traffic_interval: Some(span(check.interval)),
        interval_jitter_percent: JITTER_PERCENT,
        unhealthy_threshold: number(check.unhealthy_threshold),
        healthy_threshold: number(check.healthy_threshold),
        health_checker: Some(health_check::HealthChecker::HttpHealthCheck(http)),
        ..HealthCheck::default()
    }
}

/// Envoy's own, fast reaction to a backend that fails (docs/envoy-balance.md).
pub(super) fn outlier_detection(settings: &config::OutlierDetection) -> OutlierDetection {
    let enforced = |count: u32| number(if count > 0 { 100 } else { 0 });
    // 0 is none of Envoy's counts: what is not enforced keeps its default.
    let counted = |count: u32| number(count).filter(|_| count > 0);
    let local = settings.consecutive_local_origin_failure;
    OutlierDetection {
        consecutive_gateway_failure: counted(settings.consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: enforced(settings.consecutive_gateway_failure),
        consecutive_5xx: counted(settings.consecutive_5xx),
        enforcing_consecutive_5xx: enforced(settings.consecutive_5xx),
        split_external_local_origin_errors: local.is_some(),
        consecutive_local_origin_failure: local.and_then(counted),
        enforcing_consecutive_local_origin_failure: local.and_then(enforced),
        enforcing_local_origin_success_rate: local.and(number(0)),
        enforcing_success_rate: number(0),
        interval: Some(span(settings.interval)),
        base_ejection_time: Some(span(settings.base_ejection_time)),
        max_ejection_time: Some(span(settings.max_ejection_time)),
        max_ejection_percent: number(settings.max_ejection_percent),
        // What answers checks may fail all the same.
        successful_active_health_check_uneject_host: Some(BoolValue { value: false }),
        ..OutlierDetection::default()
    }
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}
