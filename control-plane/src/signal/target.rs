use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use thiserror::Error;

/// Why a webhook is not sent to a URL. Messages name the host only: paths and queries may hold tokens.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("webhook URL cannot be read: {0}")]
    Malformed(String),
    /// Neither `http` nor `https`.
    #[error("webhook URL has scheme {0}, not http or https")]
    Scheme(String),
    /// User name or password in the URL, which would end up in logs.
    #[error("webhook URL for {0} holds a user name or password")]
    UserInfo(String),
    /// The host is, or resolves to, an address that no receiver can have.
    #[error("webhook host {host} is refused: {address} is {why}")]
    Refused {
        /// The host as it stands in the URL.
        host: String,
        /// The address behind it.
        address: IpAddr,
        /// What is wrong with the address.
        why: RefusedAddress,
    },
    /// The host has no address.
    #[error("webhook host {host} does not resolve: {reason}")]
    Unresolved {
        /// The host as it stands in the URL.
        host: String,
        /// What the resolver said.
        reason: String,
    },
}

/// What makes an address impossible for a webhook, whatever the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefusedAddress {
    /// 169.254.0.0/16 or `fe80::/10`, where clouds also serve the credentials of the machine.
    #[error("a link-local address")]
    LinkLocal,
    /// The metadata service of a cloud at an address of its own.
    #[error("a cloud metadata address")]
    Metadata,
    /// 0.0.0.0/8 or `::`.
    #[error("an unspecified address")]
    Unspecified,
    /// Multicast or broadcast.
    #[error("an address of many machines")]
    Multicast,
}

/// Metadata services that are not at a link-local address: AWS, Google, Alibaba, Oracle, Azure.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// Reads a webhook's URL and checks all that can be checked without the network.
///
/// # Errors
/// When it is no `http` or `https` URL, holds credentials, or names a refused address.
pub fn check_url(text: &str) -> Result<Url, TargetError> {
    let url = Url::parse(text.trim()).map_err(|error| TargetError::Malformed(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(TargetError::Scheme(url.scheme().to_owned()));
    }
    let host = host(&url);
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TargetError::UserInfo(host));
    }
    if let Some(address) = literal(&host) {
        refuse(&host, address)?;
    }
    Ok(url)
}

/// Resolves the host of a URL; the connection must then be made to one of these addresses and no other.
///
/// # Errors
/// When the host does not resolve or any of its addresses is refused: a name that shows two faces is not trusted.
pub(super) async fn resolve(url: &Url) -> Result<Vec<SocketAddr>, TargetError> {
    let host = host(url);
    let port = url.port_or_known_default().unwrap_or(80);
    if let Some(address) = literal(&host) {
        refuse(&host, address)?;
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let unresolved = |reason: String| TargetError::Unresolved { host: host.clone(), reason };
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let addresses: Vec<SocketAddr> = found.map_err(|error| unresolved(error.to_string()))?.collect();
    if addresses.is_empty() {
        return Err(unresolved("no address".to_owned()));
    }
    for address in &addresses {
        refuse(&host, address.ip())?;
    }
    Ok(addresses)
}

/// The host as it stands in the URL; an IPv6 address keeps its brackets.
pub(super) fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

/// The URL parser has turned every spelling of an IPv4 address (octal, one number) into the usual one by now.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn refuse(host: &str, address: IpAddr) -> Result<(), TargetError> {
    check_address(address).map_err(|why| TargetError::Refused { host: host.to_owned(), address, why })
}

/// Checks that an address can belong to a receiver. Loopback and private addresses can: autoscalers live there.
///
/// An IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4) is checked as well.
///
/// # Errors
/// Says what the address is.
pub fn check_address(address: IpAddr) -> Result<(), RefusedAddress> {
    if METADATA.contains(&address) {
        return Err(RefusedAddress::Metadata);
    }
    match address {
        IpAddr::V4(v4) => check_v4(v4),
        IpAddr::V6(v6) => check_v6(v6),
    }
}

fn check_v4(address: Ipv4Addr) -> Result<(), RefusedAddress> {
    if address.is_link_local() {
        Err(RefusedAddress::LinkLocal)
    } else if address.octets()[0] == 0 {
        Err(RefusedAddress::Unspecified)
    } else if address.is_multicast() || address.is_broadcast() {
        Err(RefusedAddress::Multicast)
    } else {
        Ok(())
    }
}

fn check_v6(address: Ipv6Addr) -> Result<(), RefusedAddress> {
    if address.is_loopback() {
        return Ok(());
    }
    if address.is_unicast_link_local() {
        return Err(RefusedAddress::LinkLocal);
    }
    if address.is_unspecified() {
        return Err(RefusedAddress::Unspecified);
    }
    if address.is_multicast() {
        return Err(RefusedAddress::Multicast);
    }
    embedded_v4(address).map_or(Ok(()), |inner| check_address(IpAddr::V4(inner)))
}

fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let from = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => Some(from(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(from(high, low)),
        [0x2002, high, low, ..] => Some(from(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_no_receiver_has_are_refused_in_every_spelling() {
        use RefusedAddress::{LinkLocal, Metadata, Multicast, Unspecified};
        let cases = [
            ("http://169.254.169.254/latest", LinkLocal),
            ("http://2852039166/", LinkLocal),
            ("http://0xa9.0xfe.0xa9.0xfe/", LinkLocal),
            ("http://[::ffff:169.254.169.254]/", LinkLocal),
            ("http://[64:ff9b::a9fe:a9fe]/", LinkLocal),
            ("http://[2002:a9fe:a9fe::1]/", LinkLocal),
            ("http://[fe80::1]/", LinkLocal),
            ("http://[fd00:ec2::254]/", Metadata),
            ("http://100.100.100.200/", Metadata),
            ("https://0.0.0.0/", Unspecified),
            ("https://[::]/", Unspecified),
            ("http://224.0.0.1/", Multicast),
            ("http://255.255.255.255/", Multicast),
            ("http://[ff02::1]/", Multicast),
        ];
        for (url, expected) in cases {
            let error = check_url(url).unwrap_err();
            assert!(matches!(&error, TargetError::Refused { why, .. } if *why == expected), "{url}: {error}");
        }
    }

    #[test]
    fn receivers_in_private_networks_are_allowed() {
        for url in [
            "https://autoscaler.example/hook?token=1",
            "http://127.0.0.1:9900/hook",
            "http://localhost:1/",
            "http://10.1.2.3/",
            "http://192.168.0.1/",
            "http://[::1]:9900/",
            "http://[fd12::1]/",
        ] {
            assert!(check_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn other_urls_are_refused_without_showing_what_they_hold() {
        assert_eq!(check_url("ftp://a/"), Err(TargetError::Scheme("ftp".into())));
        assert!(matches!(check_url("no url"), Err(TargetError::Malformed(_))));
        let error = check_url("https://me:hunter2@host/?t=s3cret").unwrap_err().to_string();
        assert!(error.contains("host") && !error.contains("hunter2") && !error.contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_checked() {
        let url = check_url("http://localhost:9900/hook").unwrap();
        let addresses = resolve(&url).await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 9900));
        // What is checked when a URL is read is checked again before each connection.
        let metadata = Url::parse("http://169.254.169.254/").unwrap();
        assert!(matches!(resolve(&metadata).await, Err(TargetError::Refused { .. })));
    }
}
