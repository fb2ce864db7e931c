use envoy_types::pb::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy};
use envoy_types::pb::envoy::config::core::v3::{RuntimeDouble, TypedExtensionConfig};
use envoy_types::pb::envoy::config::route::v3::route_action::{HashPolicy, hash_policy};
use envoy_types::pb::envoy::extensions::load_balancing_policies::{
    client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin,
    common::v3::{LocalityLbConfig, locality_lb_config},
    least_request::v3::{LeastRequest, least_request::SelectionMethod},
    maglev::v3::Maglev,
    random::v3::Random,
    ring_hash::v3::RingHash,
    round_robin::v3::RoundRobin,
};
use envoy_types::pb::google::protobuf::{Any, UInt64Value};
use envoy_types::util::pack_any;

use crate::config::{HashOn, ModelBalance, Policy};
use crate::decide::ACTIVE_REQUEST_BIAS;

use super::proto::{seconds, span};

/// ORCA: how long reports of a backend are gathered before it is weighted by them, how often weights are worked out, and
/// after how long without a report they are forgotten.
const BLACKOUT_SECONDS: i64 = 10;
const WEIGHT_UPDATE_SECONDS: i64 = 1;
const WEIGHT_EXPIRATION_SECONDS: i64 = 180;

/// By which an operator can change the bias.
pub(super) const ACTIVE_REQUEST_BIAS_KEY: &str = "clairvoy.active_request_bias";
/// Points on a hash ring: shares are off by some 0.4 % of the traffic (1.6 % with Envoy's 1,024), for 0.4 MB.
const RING_SIZE: u64 = 16_384;

/// Envoy's policy for a model.
pub(super) fn load_balancing(balance: &ModelBalance) -> LoadBalancingPolicy {
    let (name, config) = extension(balance);
    LoadBalancingPolicy {
        policies: vec![load_balancing_policy::Policy {
            typed_extension_config: Some(TypedExtensionConfig {
                name: format!("envoy.load_balancing_policies.{name}"),
                typed_config: Some(config),
            }),
        }],
    }
}

fn extension(balance: &ModelBalance) -> (&'static str, Any) {
    match balance.policy {
        // Shares between groups come with the assignment; inside a group Envoy takes the backend with the fewest
        // active requests.
        Policy::Predictive | Policy::Static => ("least_request", pack_any(least_request_in_groups())),
        Policy::RoundRobin | Policy::WeightedRoundRobin => ("round_robin", pack_any(RoundRobin::default())),
        // With unequal weights Envoy divides each by the active requests plus one.
        Policy::LeastRequest | Policy::WeightedLeastRequest | Policy::LeastResponseTime => {
            ("least_request", pack_any(LeastRequest::default()))
        }
        Policy::Random => ("random", pack_any(Random::default())),
        Policy::RingHash => {
            let minimum_ring_size = Some(UInt64Value { value: RING_SIZE });
            ("ring_hash", pack_any(RingHash { minimum_ring_size, ..RingHash::default() }))
        }
        Policy::Maglev => ("maglev", pack_any(Maglev::default())),
        Policy::Orca => {
            let orca = ClientSideWeightedRoundRobin {
                blackout_period: Some(seconds(BLACKOUT_SECONDS)),
                weight_update_period: Some(seconds(WEIGHT_UPDATE_SECONDS)),
                weight_expiration_period: Some(seconds(WEIGHT_EXPIRATION_SECONDS)),
                metric_names_for_computing_utilization: balance.utilisation.clone(),
                ..ClientSideWeightedRoundRobin::default()
            };
            ("client_side_weighted_round_robin", pack_any(orca))
        }
    }
}

fn least_request_in_groups() -> LeastRequest {
    let weighted = locality_lb_config::LocalityWeightedLbConfig {};
    LeastRequest {
        selection_method: SelectionMethod::FullScan.into(),
        // Only where endpoints have weights; they are made for it.
        active_request_bias: Some(RuntimeDouble {
            default_value: ACTIVE_REQUEST_BIAS,
            runtime_key: ACTIVE_REQUEST_BIAS_KEY.to_owned(),
        }),
        locality_lb_config: Some(LocalityLbConfig {
            locality_config_specifier: Some(
                locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(weighted),
            ),
        }),
        ..LeastRequest::default()
    }
}

/// What a route hashes: the first that a request has.
pub(super) fn hash_policies(balance: &ModelBalance) -> Vec<HashPolicy> {
    let policy = |hash_on: &HashOn| HashPolicy {
        terminal: true,
        policy_specifier: Some(match hash_on {
            HashOn::SourceIp => {
                let properties = hash_policy::ConnectionProperties { source_ip: true };
                hash_policy::PolicySpecifier::ConnectionProperties(properties)
            }
            HashOn::Header(name) => hash_policy::PolicySpecifier::Header(hash_policy::Header {
                header_name: name.clone(),
                ..hash_policy::Header::default()
            }),
            HashOn::Cookie { name, ttl } => hash_policy::PolicySpecifier::Cookie(hash_policy::Cookie {
                name: name.clone(),
                ttl: ttl.map(span),
                path: ttl.map_or_else(String::new, |_| "/".to_owned()),
                ..hash_policy::Cookie::default()
            }),
        }),
    };
    balance.hash_on.iter().map(policy).collect()
}

#[cfg(test)]
mod tests {
    use super::hash_policy::{ConnectionProperties, Cookie, Header, PolicySpecifier};
    use super::*;

    #[test]
    fn routes_hash_what_makes_requests_alike_and_envoy_makes_cookies_that_have_a_ttl() {
        let config = crate::config::parse(
            "models:\n  - name: m\n    pools: [p]\n    balance:\n      policy: ring_hash\n      \
             hash_on: [{ header: x-user }, { cookie: { name: sid, ttl: 1h } }, { cookie: { name: tab, ttl: 0s } }, \
             { cookie: { name: own } }, source_ip]\npools: [{ name: p }]\n",
        );
        let cookie = |name: &str, ttl: Option<i64>, path: &str| {
            PolicySpecifier::Cookie(Cookie {
                name: name.to_owned(),
                ttl: ttl.map(seconds),
                path: path.to_owned(),
                ..Cookie::default()
            })
        };
        let expected = [
            PolicySpecifier::Header(Header { header_name: "x-user".to_owned(), ..Header::default() }),
            cookie("sid", Some(3600), "/"),
            cookie("tab", Some(0), "/"),
            cookie("own", None, ""),
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        ];
        let expected =
            expected.map(|specifier| HashPolicy { terminal: true, policy_specifier: Some(specifier) });
        assert_eq!(hash_policies(&config.unwrap().models[0].balance), expected);
    }
}
