//! The ways of balancing, each as the bootstrap of an Envoy. All of them but Clairvoy's are static.

use std::net::SocketAddr;

use serde_json::{Value, json};

use clairvoy_tests::{Cell, Gpu, Machine, capacity_shares};

/// Retries, circuit breakers and ejection are those that Clairvoy gives its clusters, so that balancing is the only
/// difference.
const MOST_CONCURRENT: u32 = 1_000_000;
const LEAST_REQUEST: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest";
const ROUND_ROBIN: &str =
    "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin";
const ORCA: &str = "type.googleapis.com/envoy.extensions.load_balancing_policies.\
                    client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin";
/// Weights are whole numbers; the shares times this are exact enough.
const WEIGHT: f64 = 100_000.0;

/// A way of balancing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Policy {
    /// Clairvoy steers the Envoys
    Predictive,
    /// The same, and may refuse requests; only where more come than the fleet holds
    PredictiveShedding,
    /// Shares of groups by measured capacity, never changed; LEAST_REQUEST over all inside a group
    StaticLocality,
    /// ROUND_ROBIN with weights by measured capacity
    ExactRr,
    /// Plain ROUND_ROBIN
    Rr,
    /// LEAST_REQUEST with two choices, Envoy's default
    Lr2,
    /// LEAST_REQUEST over all
    FullScan,
    /// Weights that Envoy makes of the backends' load reports
    Orca,
}

/// Where an Envoy listens and what it sends to.
#[derive(Debug)]
pub(crate) struct Edge<'a> {
    pub(crate) node: &'a str,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) machines: &'a [Machine],
    pub(crate) servers: &'a [SocketAddr],
    /// Requests per second that a machine of each class takes, for the sizes of the beginning.
    pub(crate) rps: [f64; Gpu::ALL.len()],
    /// True when zones count.
    pub(crate) has_zones: bool,
}

impl Policy {
    pub(crate) const ALL: [Self; 8] = [
        Self::Predictive,
        Self::PredictiveShedding,
        Self::StaticLocality,
        Self::ExactRr,
        Self::Rr,
        Self::Lr2,
        Self::FullScan,
        Self::Orca,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Predictive => "predictive",
            Self::PredictiveShedding => "predictive-shedding",
            Self::StaticLocality => "static-locality",
            Self::ExactRr => "exact-rr",
            Self::Rr => "rr",
            Self::Lr2 => "lr2",
            Self::FullScan => "full-scan",
            Self::Orca => "orca",
        }
    }

    /// True when Clairvoy steers the Envoys.
    pub(crate) const fn is_steered(self) -> bool {
        matches!(self, Self::Predictive | Self::PredictiveShedding)
    }

    /// True for a policy that is measured in a cell.
    pub(crate) fn is_for(self, cell: Cell) -> bool {
        match self {
            Self::Predictive | Self::Rr => true,
            Self::PredictiveShedding => cell.is_beyond_capacity(),
            _ => !cell.is_probe(),
        }
    }

    /// The bootstrap of a static policy; none of the one that Clairvoy steers.
    pub(crate) fn bootstrap(self, edge: &Edge<'_>) -> Option<Value> {
        let (policy, endpoints) = match self {
            Self::Predictive | Self::PredictiveShedding => return None,
            Self::StaticLocality => (static_locality(), by_group(edge)),
            Self::ExactRr => (json!({ "@type": ROUND_ROBIN }), by_capacity(edge)),
            Self::Rr => (json!({ "@type": ROUND_ROBIN }), equal(edge)),
            Self::Lr2 => (json!({ "@type": LEAST_REQUEST, "choice_count": 2 }), equal(edge)),
            Self::FullScan => {
                (json!({ "@type": LEAST_REQUEST, "selection_method": "FULL_SCAN" }), equal(edge))
            }
            // Its own defaults: ten seconds before weights count, then new ones each second.
            Self::Orca => (json!({ "@type": ORCA }), equal(edge)),
        };
        Some(bootstrap(edge, &policy, &endpoints, self == Self::Orca))
    }
}

/// The form that Clairvoy uses, without Clairvoy.
fn static_locality() -> Value {
    json!({
        "@type": LEAST_REQUEST,
        "selection_method": "FULL_SCAN",
        "locality_lb_config": { "locality_weighted_lb_config": {} },
    })
}

fn endpoint(server: SocketAddr) -> Value {
    json!({ "endpoint": { "address": address(server) } })
}

fn address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn weight(share: f64) -> u32 {
    ((share * WEIGHT).round() as u32).max(1)
}

fn equal(edge: &Edge<'_>) -> Value {
    let endpoints: Vec<Value> = edge.servers.iter().map(|server| endpoint(*server)).collect();
    json!([{ "lb_endpoints": endpoints }])
}

fn by_capacity(edge: &Edge<'_>) -> Value {
    let shares = capacity_shares(edge.machines, &edge.rps);
    let endpoints = edge.servers.iter().zip(shares).map(|(server, share)| {
        let mut endpoint = endpoint(*server);
        endpoint["load_balancing_weight"] = weight(share).into();
        endpoint
    });
    let endpoints: Vec<Value> = endpoints.collect();
    json!([{ "lb_endpoints": endpoints }])
}

fn by_group(edge: &Edge<'_>) -> Value {
    let shares = capacity_shares(edge.machines, &edge.rps);
    let mut groups = Vec::new();
    for zone in [false, true] {
        for class in Gpu::ALL {
            let of_group = |machine: &Machine| {
                machine.class == class && (edge.has_zones && machine.in_second_zone) == zone
            };
            let members: Vec<usize> =
                (0..edge.machines.len()).filter(|&i| of_group(&edge.machines[i])).collect();
            if members.is_empty() {
                continue;
            }
            let endpoints: Vec<Value> = members.iter().map(|&index| endpoint(edge.servers[index])).collect();
            groups.push(json!({
                "locality": { "zone": if zone { "zone-b" } else { "zone-a" }, "sub_zone": class.name() },
                "load_balancing_weight": weight(members.iter().map(|&index| shares[index]).sum()),
                "lb_endpoints": endpoints,
            }));
        }
    }
    groups.into()
}

fn bootstrap(edge: &Edge<'_>, policy: &Value, endpoints: &Value, asks_for_load: bool) -> Value {
    let mut route = json!({
        "match": { "prefix": "/" },
        "route": {
            "cluster": "chat",
            "timeout": "0s",
            "idle_timeout": "300s",
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset-before-request",
                "num_retries": 2,
                "host_selection_retry_max_attempts": 5,
                "retry_host_predicate": [{
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
                    },
                }],
            },
        },
    });
    if asks_for_load {
        route["request_headers_to_add"] = json!([{
            "header": { "key": "endpoint-load-metrics-format", "value": "text" },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }]);
    }
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "stream_idle_timeout": "0s",
        "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    json!({
        "node": { "id": edge.node, "cluster": edge.node },
        "admin": { "address": address(edge.admin) },
        "static_resources": {
            "listeners": [{
                "name": "edge",
                "address": address(edge.listen),
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager,
                }] }],
            }],
            "clusters": [cluster(policy, endpoints)],
        },
    })
}

fn cluster(policy: &Value, endpoints: &Value) -> Value {
    json!({
        "name": "chat",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_balancing_policy": {
            "policies": [{ "typed_extension_config": { "name": "policy", "typed_config": policy } }],
        },
        "common_lb_config": { "healthy_panic_threshold": { "value": 0 } },
        "circuit_breakers": { "thresholds": [{
            "max_connections": MOST_CONCURRENT,
            "max_pending_requests": MOST_CONCURRENT,
            "max_requests": MOST_CONCURRENT,
            "max_retries": MOST_CONCURRENT,
        }] },
        "outlier_detection": {
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "consecutive_5xx": 5,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_percent": 50,
        },
        // Nobody else tells a static cluster who is there: Clairvoy looks once a second, too.
        "health_checks": [{
            "timeout": "0.9s",
            "interval": "1s",
            "no_traffic_interval": "1s",
            "unhealthy_threshold": 2,
            "healthy_threshold": 1,
            "http_health_check": { "path": "/health" },
        }],
        "load_assignment": {
            "cluster_name": "chat",
            "policy": { "overprovisioning_factor": 100 },
            "endpoints": endpoints,
        },
    })
}
