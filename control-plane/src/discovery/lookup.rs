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
pub(crate) const MOST: usize = 10_000;

/// What was found under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    /// At most [`MOST`], those with the lowest addresses.
    pub(super) backends: BTreeSet<SocketAddr>,
    /// How long the answer is good.
    pub(super) ttl: Duration,
    /// How many more there are; of services, targets that were not looked up count as one each.
    pub(super) beyond: usize,
}

/// Looks up the backends of a name: all of them, and how long the answer is good. Nothing is cached, so that the TTL is
/// what the server says at this moment.
pub(super) async fn look(dns: &DnsDiscovery) -> Result<Looks, LookupFailure> {
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
    let (mut backends, ttl, left_out) =
        tokio::time::timeout(dns.timeout.0, looking).await.map_err(timeout)??;
    if backends.is_empty() {
        return Err(LookupFailure::Empty(name.clone()));
    }
    let beyond = left_out + cut(&mut backends);
    Ok(Looks { backends, ttl: Duration::from_secs(u64::from(ttl)), beyond })
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

/// Backends, the shortest TTL of their records in seconds, and how many were left out.
type Backends = (BTreeSet<SocketAddr>, u32, usize);

impl Lookup {
    async fn records(&self, name: &str, record: RecordType) -> Result<Vec<Record>, LookupFailure> {
        let answer = self.resolver.lookup(name, record).await.map_err(|error| failure(name, &error))?;
        Ok(answer.answers().to_vec())
    }

    async fn addresses(&self, name: &str, record: RecordType, port: u16) -> Result<Backends, LookupFailure> {
        let records = self.records(name, record).await?;
        Ok((addresses_in(&records, port), shortest(&records), 0))
    }

    /// The targets of a service with their addresses. A target that does not exist or has no address is no backend; one
    /// whose address cannot be told makes the whole answer unknown.
    async fn services(&self, name: &str) -> Result<Backends, LookupFailure> {
        let records = self.records(name, RecordType::SRV).await?;
        let mut targets = targets_in(&records);
        let mut beyond = cut(&mut targets);
        let wanted = targets.iter().flat_map(|(target, port)| {
            [RecordType::A, RecordType::AAAA].map(|record| self.target(target, record, *port))
        });
        let mut ttl = shortest(&records);
        let mut backends = BTreeSet::new();
        for (found, found_ttl, left_out) in try_join_all(wanted).await? {
            backends.extend(found);
            beyond += left_out;
            ttl = ttl.min(found_ttl);
        }
        Ok((backends, ttl, beyond))
    }

    async fn target(&self, name: &str, record: RecordType, port: u16) -> Result<Backends, LookupFailure> {
        match self.addresses(name, record, port).await {
            Err(LookupFailure::NoSuchName(_) | LookupFailure::Empty(_)) => Ok((BTreeSet::new(), u32::MAX, 0)),
            other => other,
        }
    }
}

/// Leaves the first [`MOST`]; tells how many went.
fn cut<T: Ord>(found: &mut BTreeSet<T>) -> usize {
    let beyond = found.len().saturating_sub(MOST);
    (0..beyond).for_each(|_| drop(found.pop_last()));
    beyond
}

fn addresses_in(records: &[Record], port: u16) -> BTreeSet<SocketAddr> {
    let addresses = records.iter().filter_map(|record| address(&record.data));
    addresses.map(|ip| SocketAddr::new(ip, port)).collect()
}

/// The targets of services, with their ports; one without a target says that there is none.
fn targets_in(records: &[Record]) -> BTreeSet<(String, u16)> {
    let target = |record: &Record| match &record.data {
        RData::SRV(service) => Some((service.target.to_utf8(), service.port)),
        _ => None,
    };
    records.iter().filter_map(target).filter(|(target, _)| !matches!(target.as_str(), "" | ".")).collect()
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::Name;
    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV, TXT};
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = Name> {
        "([a-z0-9_-]{1,12}\\.){0,4}".prop_map(|text| Name::from_ascii(&text).unwrap_or_else(|_| Name::root()))
    }

    fn data() -> impl Strategy<Value = RData> {
        prop_oneof![
            any::<u32>().prop_map(|bits| RData::A(A(Ipv4Addr::from_bits(bits)))),
            any::<u128>().prop_map(|bits| RData::AAAA(AAAA(Ipv6Addr::from_bits(bits)))),
            (any::<u16>(), any::<u16>(), any::<u16>(), name()).prop_map(
                |(priority, weight, port, target)| RData::SRV(SRV::new(priority, weight, port, target))
            ),
            name().prop_map(|name| RData::CNAME(CNAME(name))),
            ".{0,20}".prop_map(|text| RData::TXT(TXT::new(vec![text]))),
        ]
    }

    proptest! {
        #![proptest_config(crate::fuzz::cases())]

        #[test]
        fn of_any_records_those_that_name_backends_are_taken(
            records in proptest::collection::vec((name(), any::<u32>(), data()), 0..20), port in any::<u16>(),
        ) {
            let records: Vec<Record> =
                records.into_iter().map(|(name, ttl, data)| Record::from_rdata(name, ttl, data)).collect();
            let addresses = addresses_in(&records, port);
            for record in &records {
                let ip: Option<IpAddr> = match &record.data {
                    RData::A(ip) => Some(ip.0.into()),
                    RData::AAAA(ip) => Some(ip.0.into()),
                    _ => None,
                };
                prop_assert!(ip.is_none_or(|ip| addresses.contains(&SocketAddr::new(ip, port))));
                prop_assert!(shortest(&records) <= record.ttl);
            }
            prop_assert!(addresses.len() + targets_in(&records).len() <= records.len());
            prop_assert!(targets_in(&records).iter().all(|(target, _)| !target.is_empty() && target != "."));
        }

        #[test]
        fn a_message_of_any_bytes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::from_vec(&bytes) {
                let _ = (addresses_in(&message.answers, 1), targets_in(&message.answers), shortest(&message.answers));
            }
        }
    }

    #[test]
    fn what_is_beyond_the_bound_is_counted() {
        let record = |index: u32| {
            Record::from_rdata(Name::root(), 5, RData::A(A(Ipv4Addr::from_bits(0x0a00_0000 + index))))
        };
        let records: Vec<Record> = (0..10_007).map(record).collect();
        let mut found = addresses_in(&records, 80);
        assert_eq!((cut(&mut found), found.len()), (7, MOST));
        assert_eq!((cut(&mut found), found.len()), (0, MOST));
    }
}
