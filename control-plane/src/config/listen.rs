use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use garde::{Path, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::check_sans;
use super::validate::Fault;
use super::{Config, GatewayClient, ListenerTls, PoolToken, RetentionPeriods, is_named};

/// Where Clairvoy listens. Addresses beyond loopback need a token, or for Envoys bound certificates.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Listen {
    /// Dashboard, REST API, metrics and health (default `127.0.0.1:8080`).
    pub api: SocketAddr,
    /// The discovery server that Envoys connect to (default `127.0.0.1:18000`).
    pub xds: SocketAddr,
    /// Environment variable that holds the bearer token which the API and the discovery server ask for.
    /// Needed as soon as one of the addresses is not loopback; for `xds` alone `xds_clients` does as well.
    pub token_env: Option<String>,
    /// More tokens, with which backends of some pools can be listed, registered, drained and removed, and nothing else.
    pub tokens: Vec<PoolToken>,
    /// TLS on `api` (default: none).
    pub api_tls: Option<ListenerTls>,
    /// TLS on `xds` (default: none).
    pub xds_tls: Option<ListenerTls>,
    /// Envoys that are known by their certificates. With any here, every Envoy needs a certificate with one of these names,
    /// and no token.
    pub xds_clients: Vec<GatewayClient>,
    /// Connections at a time, of `api` and of `xds` each (default 10,000).
    #[garde(range(min = 1))]
    pub max_connections: usize,
    /// Connections at a time from one address, of `api` and of `xds` each (default 1000; of IPv6: from one /64).
    #[garde(range(min = 1))]
    pub max_connections_per_peer: usize,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            api: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            xds: SocketAddr::from((Ipv4Addr::LOCALHOST, 18000)),
            token_env: None,
            tokens: Vec::new(),
            api_tls: None,
            xds_tls: None,
            xds_clients: Vec::new(),
            max_connections: 10_000,
            max_connections_per_peer: 1000,
        }
    }
}

impl Listen {
    /// Whether Envoys are known by their certificates, and not by the token.
    pub fn knows_envoys(&self) -> bool {
        !self.xds_clients.is_empty()
    }

    /// Whether a certificate with these names opens the discovery server at all.
    pub fn admits(&self, identities: &[String]) -> bool {
        !self.knows_envoys() || self.xds_clients.iter().any(|client| is_named(&client.san, identities))
    }

    /// Whether a certificate with these names opens a gateway.
    pub fn opens(&self, gateway: &str, identities: &[String]) -> bool {
        let opens = |client: &GatewayClient| match &client.gateways {
            Some(gateways) => gateways.iter().any(|name| name == gateway),
            None => true,
        };
        let mut named = self.xds_clients.iter().filter(|client| is_named(&client.san, identities));
        !self.knows_envoys() || named.any(opens)
    }
}

impl Listen {
    /// The gateways that a certificate with these names opens; none when it opens all.
    pub fn only_gateways(&self, identities: &[String]) -> Option<BTreeSet<&str>> {
        if !self.knows_envoys() {
            return None;
        }
        let named = self.xds_clients.iter().filter(|client| is_named(&client.san, identities));
        let mut only = BTreeSet::new();
        for client in named {
            only.extend(client.gateways.as_ref()?.iter().map(String::as_str));
        }
        Some(only)
    }
}

impl Config {
    pub(super) fn check_listen(&self, root: &Path, fault: &mut Fault<'_>) {
        let (own, listen) = (&self.listen, root.join("listen"));
        let has_token = own.token_env.is_some();
        let for_envoys = ", name the Envoys' certificates in `listen.xds_clients`";
        for (field, address, is_guarded, otherwise) in
            [("api", own.api, has_token, ""), ("xds", own.xds, has_token || own.knows_envoys(), for_envoys)]
        {
            if !address.ip().is_loopback() && !is_guarded {
                let message = format!(
                    "{address} is reachable from other machines: set `listen.token_env` to the name of an \
                     environment variable with a bearer token{otherwise}, or listen on 127.0.0.1"
                );
                fault(listen.join(field), message);
            }
        }
        if own.api == own.xds {
            fault(listen.join("xds"), format!("{} is also `listen.api`: give each its own port", own.xds));
        }
        let path = listen.join("xds_clients");
        let sans = own.xds_clients.iter().map(|client| client.san.as_str());
        check_sans(&path, sans, ("listen.xds_tls", own.xds_tls.as_ref()), fault);
        let known = self.gateways();
        for (index, client) in own.xds_clients.iter().enumerate() {
            let path = path.join(index).join("gateways");
            if client.gateways.as_ref().is_some_and(Vec::is_empty) {
                fault(path.clone(), "a certificate for no gateway".to_owned());
            }
            for (position, name) in client.gateways.iter().flatten().enumerate() {
                if !known.iter().any(|gateway| gateway.name == *name) {
                    fault(path.join(position), format!("there is no gateway `{name}`"));
                }
            }
        }
    }
}

/// The Postgres that keeps telemetry, models and decisions.
#[derive(Clone, Default, Deserialize, Serialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields, default)]
#[garde(allow_unvalidated)]
pub struct Database {
    /// `postgres://user@host/database`. Left out (and no `DATABASE_URL` set): a private Postgres in `data_dir`.
    #[serde(skip_serializing)]
    pub url: Option<String>,
    /// Folder with `initdb` and `postgres` for the private Postgres; left out: looked for in the usual places.
    pub postgres_bin: Option<PathBuf>,
    /// How long rows are kept.
    pub retention: RetentionPeriods,
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Database")
            .field("url", &self.url.as_ref().map(|_| "(hidden)"))
            .field("postgres_bin", &self.postgres_bin)
            .field("retention", &self.retention)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    #[test]
    fn a_certificate_opens_the_gateways_of_all_its_names() {
        let config = parse(
            "models: [{ name: m, pools: [p] }]\npools: [{ name: p, backends: [\"127.0.0.1:1\"] }]\n\
             gateways: [{ name: a, listen: \"127.0.0.1:2\" }, { name: b, node_cluster: b, listen: \"127.0.0.1:3\" }]\n\
             listen:\n  xds_tls: { certificate: c, private_key: k, client_ca: ca }\n\
             \x20 xds_clients:\n  - { san: a.example, gateways: [a] }\n  - { san: b.example, gateways: [b] }\n  - { san: all.example }\n",
        )
        .unwrap();
        let only = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            config
                .listen
                .only_gateways(&names)
                .map(|only| only.into_iter().map(str::to_owned).collect::<Vec<_>>())
        };
        assert_eq!(only(&["a.example"]), Some(vec!["a".to_owned()]));
        assert_eq!(only(&["a.example", "B.example"]), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(only(&["a.example", "all.example"]), None);
        assert_eq!(only(&["other.example"]), Some(Vec::new()));
    }
}
