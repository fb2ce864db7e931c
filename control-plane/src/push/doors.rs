use std::collections::HashMap;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Refused connections are told of at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Counts connections, in whole and by peer.
#[derive(Debug)]
pub(super) struct Doors {
    most: usize,
    most_of_peer: usize,
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    all: usize,
    peers: HashMap<IpAddr, usize>,
    told_at: Option<Instant>,
    untold: u64,
}

/// Which bound a connection is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Full {
    All,
    Peer,
}

impl EncodeLabelValue for Full {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(match self {
            Self::All => "all",
            Self::Peer => "peer",
        })
    }
}

/// A connection that is inside, until it is dropped.
#[derive(Debug)]
pub(super) struct Entered {
    doors: Arc<Doors>,
    peer: IpAddr,
}

impl Doors {
    pub(super) fn new(most: usize, most_of_peer: usize) -> Self {
        Self { most, most_of_peer, inside: Mutex::default() }
    }

    /// Lets a connection in, unless there are too many.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Entered, Full> {
        let peer = party(peer);
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = inside.peers.get(&peer).copied().unwrap_or(0);
        if inside.all >= self.most {
            return Err(Full::All);
        }
        if of_peer >= self.most_of_peer {
            return Err(Full::Peer);
        }
        inside.all += 1;
        inside.peers.insert(peer, of_peer + 1);
        Ok(Entered { doors: Arc::clone(self), peer })
    }

    /// Says that a connection was refused, now and then.
    pub(super) fn tell(&self, peer: IpAddr, full: Full, now: Instant) {
        let refused = {
            let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
            inside.untold += 1;
            if inside.told_at.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
                return;
            }
            inside.told_at = Some(now);
            std::mem::take(&mut inside.untold)
        };
        let (limit, field) = match full {
            Full::All => (self.most, "telemetry.push.max_connections"),
            Full::Peer => (self.most_of_peer, "telemetry.push.max_connections_per_peer"),
        };
        tracing::warn!(
            %peer, refused, limit,
            "senders of telemetry have too many connections, and new ones are closed: they should keep theirs open, or raise `{field}`"
        );
    }

    /// Waits until nobody is inside.
    pub(super) async fn emptied(&self) {
        while self.inside.lock().unwrap_or_else(PoisonError::into_inner).all > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut inside = self.doors.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.all = inside.all.saturating_sub(1);
        if let Some(count) = inside.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                inside.peers.remove(&self.peer);
            }
        }
    }
}

/// Who counts as one peer: an IPv4 address, or the /64 that a machine of IPv6 has for itself.
fn party(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            const HOST: u128 = u64::MAX as u128;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !HOST))
        }
        address => address,
    }
}
