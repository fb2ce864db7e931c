use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::try_join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, Record, RecordType};

use crate::config::{DnsDiscovery, DnsRecord};

use super::LookupFailure;

/// Most backends that are taken from one name.
const MOST: usize = 10_000;

/// Looks up the backends of a name: all of them, and how long the answer is good. Nothing is cached, so that the TTL is
/// what the server says at this moment.
pub(super) async fn look(dns: &DnsDiscovery) -> Result<(BTreeSet<SocketAddr>, Duration), LookupFailure> {
    let name = &dns.name;
    let lookup = Lookup { resolver: resolver(dns).map_err(|error| failure(name, &error))? };
    let looking = async {
        match dns.record {
            DnsRecord::Srv => lookup.services(name).await,
            DnsRecord::A => lookup.addresses(name, RecordType::A, dns.port.unwrap_or_default()).await,
            DnsRecord::Aaaa => lookup.addresses(name, RecordType::AAAA, dns.port.unwrap_or_default()).await,
        }
    };
    let timeout = |_| LookupFailure::Timeout(name.clone());
    let (backends, ttl) = tokio::time::timeout(dns.timeout.0, looking).await.map_err(timeout)??;
    if backends.is_empty() {
        return Err(LookupFailure::Empty(name.clone()));
    }
    Ok((backends.into_iter().take(MOST).collect(), Duration::from_secs(u64::from(ttl))))
}

fn resolver(dns: &DnsDiscovery) -> Result<TokioResolver, NetError> {
    let mut builder = match dns.resolver {
        None => TokioResolver::builder_tokio()?,
        Some(server) => {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            let server = NameServerConfig::new(server.ip(), true, connections.into());
            let config = ResolverConfig::from_name_servers(vec![server]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            builder.options_mut().use_hosts_file = ResolveHosts::Never;
            builder
        }
    };
    let options = builder.options_mut();
    options.cache_size = 0;
    // A lost packet is asked for again within the time that there is.
    options.timeout = dns.timeout.0 / 2;
    options.attempts = 1;
    builder.build()
}

struct Lookup {
    resolver: TokioResolver,
}

type Backends = (BTreeSet<SocketAddr>, u32);

impl Lookup {
    async fn records(&self, name: &str, record: RecordType) -> Result<Vec<Record>, LookupFailure> {
        let answer = self.resolver.lookup(name, record).await.map_err(|error| failure(name, &error))?;
        Ok(answer.answers().to_vec())
    }

    async fn addresses(&self, name: &str, record: RecordType, port: u16) -> Result<Backends, LookupFailure> {
        let records = self.records(name, record).await?;
        let addresses = records.iter().filter_map(|record| address(&record.data));
        Ok((addresses.map(|ip| SocketAddr::new(ip, port)).collect(), shortest(&records)))
    }

    /// The targets of a service with their addresses. A target that does not exist or has no address is no backend; one
    /// whose address cannot be told makes the whole answer unknown.
    async fn services(&self, name: &str) -> Result<Backends, LookupFailure> {
        let records = self.records(name, RecordType::SRV).await?;
        let targets: BTreeSet<(String, u16)> = records
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) if !service.target.is_root() => {
                    Some((service.target.to_utf8(), service.port))
                }
                _ => None,
            })
            .take(MOST)
            .collect();
        let wanted = targets.iter().flat_map(|(target, port)| {
            [RecordType::A, RecordType::AAAA].map(|record| self.target(target, record, *port))
        });
        let mut ttl = shortest(&records);
        let mut backends = BTreeSet::new();
        for (found, found_ttl) in try_join_all(wanted).await? {
            backends.extend(found);
            ttl = ttl.min(found_ttl);
        }
        Ok((backends, ttl))
    }

    async fn target(&self, name: &str, record: RecordType, port: u16) -> Result<Backends, LookupFailure> {
        match self.addresses(name, record, port).await {
            Err(LookupFailure::NoSuchName(_) | LookupFailure::Empty(_)) => Ok((BTreeSet::new(), u32::MAX)),
            other => other,
        }
    }
}

fn address(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

fn shortest(records: &[Record]) -> u32 {
    records.iter().map(|record| record.ttl).min().unwrap_or_default()
}

fn failure(name: &str, error: &NetError) -> LookupFailure {
    let name = name.to_owned();
    match error {
        error if error.is_nx_domain() => LookupFailure::NoSuchName(name),
        error if error.is_no_records_found() => LookupFailure::Empty(name),
        NetError::Timeout => LookupFailure::Timeout(name),
        NetError::Dns(DnsError::ResponseCode(code)) => LookupFailure::Server(name, code.to_string()),
        other => LookupFailure::Other(name, other.to_string()),
    }
}
