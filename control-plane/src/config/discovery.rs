use std::collections::BTreeSet;
use std::net::SocketAddr;

use garde::Path;
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::validate::Fault;
use super::{Config, Pool, Span};

/// Where a pool's backends are found, besides those that are listed or registered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Discovery {
    /// In DNS.
    pub dns: Option<DnsDiscovery>,
    /// When more than half of what was found is gone at once, it stays for this time all the same (default 30 s).
    pub hold: Span,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { dns: None, hold: Span::seconds(30) }
    }
}

/// A DNS name whose records are a pool's backends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsDiscovery {
    /// The name. One that ends in a dot is complete; with the system's resolver others are searched for as it is set up.
    pub name: String,
    /// What is asked for.
    #[serde(rename = "type")]
    pub record: DnsRecord,
    /// Port of the backends; needed for `a` and `aaaa`. SRV records carry their own.
    #[serde(default)]
    pub port: Option<u16>,
    /// The DNS server to ask. Left out: those of `/etc/resolv.conf`.
    #[serde(default)]
    pub resolver: Option<SocketAddr>,
    /// Bounds of the time between two lookups.
    #[serde(default)]
    pub refresh: Refresh,
    /// Longest wait for an answer (default 2 s).
    #[serde(default = "two_seconds")]
    pub timeout: Span,
}

fn two_seconds() -> Span {
    Span::seconds(2)
}

/// Kinds of DNS records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsRecord {
    /// Target and port; the targets' addresses are looked up, too.
    Srv,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

/// The records say how long they are good (TTL); they are looked up again after that time, within these bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Refresh {
    /// Shortest time (default 5 s).
    pub min: Span,
    /// Longest time (default 1 min).
    pub max: Span,
}

impl Default for Refresh {
    fn default() -> Self {
        Self { min: Span::seconds(5), max: Span::seconds(60) }
    }
}

impl Pool {
    /// The DNS name whose records are backends of the pool.
    pub fn dns(&self) -> Option<&DnsDiscovery> {
        self.discovery.dns.as_ref()
    }
}

impl Config {
    pub(super) fn check_discovery(&self, root: &Path, fault: &mut Fault<'_>) {
        for (index, pool) in self.pools.iter().enumerate() {
            let path = root.join("pools").join(index);
            check_networks(&pool.allowed_networks, &path.join("allowed_networks"), fault);
            let path = path.join("discovery");
            if pool.discovery.hold.as_seconds() > 3600.0 {
                fault(path.join("hold"), "longer than 1h".to_owned());
            }
            if let Some(dns) = pool.dns() {
                check_dns(dns, &path.join("dns"), fault);
            }
        }
        self.check_tokens(root, fault);
    }

    fn check_tokens(&self, root: &Path, fault: &mut Fault<'_>) {
        let path = root.join("listen").join("tokens");
        let mut names: BTreeSet<&str> = self.listen.token_env.as_deref().into_iter().collect();
        if !self.listen.tokens.is_empty() && self.listen.token_env.is_none() {
            let message = "bind nobody while no token is needed: set `listen.token_env`, too".to_owned();
            fault(path.clone(), message);
        }
        for (index, token) in self.listen.tokens.iter().enumerate() {
            let path = path.join(index);
            if token.token_env.is_empty() {
                fault(path.join("token_env"), "no name of an environment variable".to_owned());
            } else if !names.insert(&token.token_env) {
                fault(path.join("token_env"), format!("{} is there twice", token.token_env));
            }
            if token.pools.is_empty() {
                fault(path.join("pools"), "a token for no pool".to_owned());
            }
            for (position, name) in token.pools.iter().enumerate() {
                if self.pool(name).is_none() {
                    fault(path.join("pools").join(position), format!("there is no pool `{name}`"));
                }
            }
        }
    }
}

fn check_networks(networks: &Option<Vec<IpNet>>, path: &Path, fault: &mut Fault<'_>) {
    if networks.as_ref().is_some_and(|networks| networks.len() > 1000) {
        fault(path.clone(), "more than 1000 networks".to_owned());
    }
}

fn check_dns(dns: &DnsDiscovery, path: &Path, fault: &mut Fault<'_>) {
    let bare = dns.name.strip_suffix('.').unwrap_or(&dns.name);
    let is_label = |label: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(known)
    };
    if bare.len() > 253 || !bare.split('.').all(is_label) {
        fault(path.join("name"), format!("{:?} is no name of DNS", dns.name));
    }
    match (dns.record, dns.port) {
        (DnsRecord::Srv, Some(_)) => {
            fault(path.join("port"), "SRV records carry their ports: leave it out".to_owned());
        }
        (DnsRecord::A | DnsRecord::Aaaa, None | Some(0)) => {
            fault(path.join("port"), "records of this type carry no port: set the backends' port".to_owned());
        }
        _ => {}
    }
    if let Some(resolver) = dns.resolver.filter(|at| at.port() == 0 || at.ip().is_unspecified()) {
        fault(path.join("resolver"), format!("{resolver} is no address of a DNS server"));
    }
    let Refresh { min, max } = dns.refresh;
    if min.as_seconds() < 0.1 || min > max || max.as_seconds() > 3600.0 {
        fault(
            path.join("refresh"),
            "must be `min` of 100ms or more, not above `max` of at most 1h".to_owned(),
        );
    }
    if !(0.1..=30.0).contains(&dns.timeout.as_seconds()) {
        fault(path.join("timeout"), "must be 100ms to 30s".to_owned());
    }
}
