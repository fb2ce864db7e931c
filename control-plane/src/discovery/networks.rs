use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::config::Pool;

/// Networks of loopback and of private use: RFC 1918, RFC 6598 (carriers, overlays, clusters) and RFC 4193. Link-local
/// addresses are left out, among which clouds keep their metadata.
const PRIVATE: [IpNet; 7] = [
    v4([127, 0, 0, 0], 8),
    v4([10, 0, 0, 0], 8),
    v4([172, 16, 0, 0], 12),
    v4([192, 168, 0, 0], 16),
    v4([100, 64, 0, 0], 10),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7),
];

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(a, b, c, d), prefix))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix))
}

/// The networks in which backends of a pool may be registered or found: those of `allowed_networks`; without it loopback
/// and private ones, and the neighbours (/24 or /64) of the backends in the file.
pub fn networks(pool: &Pool) -> Vec<IpNet> {
    if let Some(networks) = &pool.allowed_networks {
        return networks.clone();
    }
    let near = |backend: &SocketAddr| {
        let prefix = if backend.is_ipv4() { 24 } else { 64 };
        IpNet::new(backend.ip(), prefix).ok().map(|network| network.trunc())
    };
    PRIVATE.into_iter().chain(pool.backends.iter().filter_map(near)).collect()
}

/// Whether a backend may be registered or found in a pool; the error says why not, and how to mend it.
pub fn check_address(pool: &Pool, address: SocketAddr) -> Result<(), String> {
    let ip = address.ip().to_canonical();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if address.port() == 0 || ip.is_unspecified() || ip.is_multicast() || is_broadcast {
        return Err(format!("{address} is no address of a backend"));
    }
    if pool.backends.contains(&address) || networks(pool).iter().any(|network| network.contains(&ip)) {
        return Ok(());
    }
    let allowed = match &pool.allowed_networks {
        Some(networks) => networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        None => "loopback, private networks and those of its configured backends".to_owned(),
    };
    Err(format!(
        "{address} lies outside the networks allowed in pool {name} ({allowed}): add its network to \
         `allowed_networks` of the pool",
        name = pool.name
    ))
}
