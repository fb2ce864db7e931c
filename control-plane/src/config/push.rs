use std::net::SocketAddr;

use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::check_sans;
use super::validate::Fault;
use super::{Config, GpuMetrics, ListenerTls, PoolClient, PoolTelemetry, PoolToken, Span};

/// Telemetry that senders push, for pools with `telemetry: push`. Off until an address is given.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Push {
    /// Where OTLP metrics come in over gRPC; usual is port 4317 (default: nowhere).
    pub otlp_grpc: Option<SocketAddr>,
    /// Where OTLP over HTTP (`/v1/metrics`), Prometheus remote write (`/api/v1/write`) and plain JSON
    /// (`/api/v1/telemetry`) come in; usual is port 4318 (default: nowhere).
    pub http: Option<SocketAddr>,
    /// Who may send what. Without any, whoever reaches the loopback address may write to all pools that push.
    pub tokens: Vec<PoolToken>,
    /// TLS on both addresses (default: none).
    pub tls: Option<ListenerTls>,
    /// Senders that are known by their certificates, and need no token.
    pub clients: Vec<PoolClient>,
    /// Longest body in bytes, as it comes and after decompression (default 20 MiB).
    pub max_body_bytes: usize,
    /// Most points of one request (default 500,000).
    pub max_points: usize,
    /// Most connections at once; more are closed (default 4,096).
    pub max_connections: usize,
    /// Most of them from one address (IPv6: one /64); more are closed (default 512).
    pub max_connections_per_peer: usize,
    /// Most requests at once; more are told to come back (default 256).
    pub max_requests: usize,
    /// Most bytes of bodies in memory, all requests together; more are told to come back (default 256 MiB).
    pub max_buffered_bytes: usize,
    /// Longest time for a body to arrive (default 10 s).
    pub body_deadline: Span,
    /// Most known points that wait to be put together; beyond it senders are told to come back (default 500,000).
    pub queue_points: usize,
    /// A backend's points become a sample when newer ones come, or after this time (default 1 s).
    pub flush: Span,
    /// Points older than this are refused (default 1 min).
    pub max_age: Span,
    /// Points that are this far ahead of the own clock are refused (default 10 s).
    pub max_future: Span,
    /// Most series of one backend; beyond it the oldest quarter is forgotten (default 2,000).
    pub max_series: usize,
    /// Labels or attributes that name the backend, first match wins; `a+b` is a host and a port. A dot in a name
    /// matches an underscore, too.
    pub backend_labels: Vec<String>,
    /// Labels that do not make a series another one, such as those by which twin senders differ.
    pub ignored_labels: Vec<String>,
}

impl Default for Push {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            otlp_grpc: None,
            http: None,
            tokens: Vec::new(),
            tls: None,
            clients: Vec::new(),
            max_body_bytes: 20 * 1024 * 1024,
            max_points: 500_000,
            max_connections: 4096,
            max_connections_per_peer: 512,
            max_requests: 256,
            max_buffered_bytes: 256 * 1024 * 1024,
            body_deadline: Span::seconds(10),
            queue_points: 500_000,
            flush: Span::seconds(1),
            max_age: Span::seconds(60),
            max_future: Span::seconds(10),
            max_series: 2000,
            backend_labels: names(&[
                "instance",
                "service.instance.id",
                "server.address+server.port",
                "net.host.name+net.host.port",
                "host.name+server.port",
                "server.address",
                "host.name",
            ]),
            ignored_labels: names(&["job", "prometheus", "prometheus_replica", "__replica__"]),
        }
    }
}

impl Push {
    /// The addresses that are listened on, with the names of their fields.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let given = [("otlp_grpc", self.otlp_grpc), ("http", self.http)];
        given.into_iter().filter_map(|(field, address)| Some((field, address?)))
    }
}

impl Config {
    pub(super) fn check_push(&self, root: &Path, fault: &mut Fault<'_>) {
        let push = &self.telemetry.push;
        let path = root.join("telemetry").join("push");
        let mut taken = vec![("listen.api", self.listen.api), ("listen.xds", self.listen.xds)];
        for (field, address) in push.addresses() {
            if !address.ip().is_loopback() && push.tokens.is_empty() && push.clients.is_empty() {
                let message = format!(
                    "{address} is reachable from other machines: give the senders `tokens` or, by their certificates, \
                     `clients`, or listen on 127.0.0.1"
                );
                fault(path.join(field), message);
            }
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == address) {
                fault(path.join(field), format!("{address} is also `{other}`: give each its own port"));
            }
            taken.push((field, address));
        }
        for (index, token) in push.tokens.iter().enumerate() {
            let path = path.join("tokens").join(index);
            if token.token_env.is_empty() {
                fault(path.join("token_env"), "no name of an environment variable".to_owned());
            }
            self.check_pushing(&path.join("pools"), &token.pools, "token", fault);
        }
        let clients = path.join("clients");
        let sans = push.clients.iter().map(|client| client.san.as_str());
        check_sans(&clients, sans, ("telemetry.push.tls", push.tls.as_ref()), fault);
        for (index, client) in push.clients.iter().enumerate() {
            self.check_pushing(&clients.join(index).join("pools"), &client.pools, "certificate", fault);
        }
        for (index, pool) in self.pools.iter().enumerate() {
            if pool.telemetry == PoolTelemetry::Push
                && pool.orca.is_none()
                && push.addresses().next().is_none()
            {
                let message =
                    "nobody listens for its telemetry: set `telemetry.push.http` or `otlp_grpc`, or the pool's `orca`".to_owned();
                fault(root.join("pools").join(index).join("telemetry"), message);
            }
            if pool.telemetry == PoolTelemetry::Push && matches!(pool.gpu_metrics, GpuMetrics::Page(_)) {
                let message = "no page is read of a pool with `telemetry: push`: push the GPU gauge with the backend's \
                               name, or say `none`"
                    .to_owned();
                fault(root.join("pools").join(index).join("gpu_metrics"), message);
            }
        }
        let counts = [
            ("max_body_bytes", push.max_body_bytes, 1024),
            ("max_points", push.max_points, 1),
            ("max_connections", push.max_connections, 1),
            ("max_connections_per_peer", push.max_connections_per_peer, 1),
            ("max_requests", push.max_requests, 1),
            ("max_buffered_bytes", push.max_buffered_bytes, push.max_body_bytes.saturating_mul(2)),
            ("queue_points", push.queue_points, push.max_points),
            ("max_series", push.max_series, 16),
        ];
        for (field, value, least) in counts {
            if !(least..=1 << 31).contains(&value) {
                fault(path.join(field), format!("must be {least} to {}", 1_u64 << 31));
            }
        }
        let spans = [
            ("body_deadline", push.body_deadline, 0.1, 300.0),
            ("flush", push.flush, 0.1, 60.0),
            ("max_age", push.max_age, 1.0, 3600.0),
            ("max_future", push.max_future, 0.0, 300.0),
        ];
        for (field, span, least, most) in spans {
            if !(least..=most).contains(&span.as_seconds()) {
                fault(path.join(field), format!("must be {least} to {most} seconds"));
            }
        }
        if push.backend_labels.is_empty() || push.backend_labels.len() > 50 {
            fault(path.join("backend_labels"), "must be 1 to 50 names".to_owned());
        }
    }

    /// Checks the pools that a token or a certificate opens.
    fn check_pushing(&self, path: &Path, pools: &[String], what: &str, fault: &mut Fault<'_>) {
        if pools.is_empty() {
            fault(path.clone(), format!("a {what} for no pool"));
        }
        for (position, name) in pools.iter().enumerate() {
            let path = path.join(position);
            match self.pool(name) {
                None => fault(path, format!("there is no pool `{name}`")),
                Some(pool) if pool.telemetry != PoolTelemetry::Push => {
                    fault(path, format!("pool `{name}` is scraped: set its `telemetry: push`"));
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn a_gpu_page_of_a_pool_that_pushes_is_a_fault() {
        let config = |gpu: &str| {
            format!(
                "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels: [{{ name: m, pools: [p] }}]\n\
                 pools: [{{ name: p, telemetry: push, backends: [\"10.0.0.1:8000\"], gpu_metrics: {gpu} }}]\n"
            )
        };
        for gpu in ["none", "same"] {
            assert!(parse(&config(gpu)).is_ok());
        }
        let faults = parse(&config("{ url: \"http://{host}:9400/metrics\" }")).unwrap_err();
        assert!(faults.contains("gpu_metrics") && faults.contains("telemetry: push"), "{faults}");
    }
}
