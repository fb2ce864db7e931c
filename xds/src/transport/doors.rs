use std::collections::HashMap;
use std::fmt::{self, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Refused connections are told of at most this often.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Bounds the connections of a listener, in whole and by peer: an IPv4 address, or the /64 that a machine of IPv6 has for
/// itself.
#[derive(Debug)]
pub struct Doors {
    bounds: Bounds,
    inside: Mutex<Inside>,
}

/// How many connections there may be, and how that is told.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// In whole.
    pub most: usize,
    /// Of one peer.
    pub most_of_peer: usize,
    /// Who connects, for the log: `senders of telemetry`.
    pub who: &'static str,
    /// The setting of `most`.
    pub most_setting: &'static str,
    /// The setting of `most_of_peer`.
    pub most_of_peer_setting: &'static str,
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
pub enum Full {
    /// That of all.
    All,
    /// That of one peer.
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
pub struct Entered {
    doors: Arc<Doors>,
    peer: IpAddr,
}

impl Doors {
    /// Nobody is inside yet.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, inside: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, unless there are too many.
    ///
    /// # Errors
    /// Which bound it is beyond.
    pub fn enter(self: &Arc<Self>, peer: IpAddr) -> Result<Entered, Full> {
        let peer = party(peer);
        let mut inside = self.lock();
        let of_peer = inside.peers.get(&peer).copied().unwrap_or(0);
        if inside.all >= self.bounds.most {
            return Err(Full::All);
        }
        if of_peer >= self.bounds.most_of_peer {
            return Err(Full::Peer);
        }
        inside.all += 1;
        inside.peers.insert(peer, of_peer + 1);
        Ok(Entered { doors: Arc::clone(self), peer })
    }

    /// Says in the log that a connection was refused, now and then.
    pub fn tell(&self, peer: IpAddr, full: Full, now: Instant) {
        let refused = {
            let mut inside = self.lock();
            inside.untold += 1;
            if inside.told_at.is_some_and(|at| now.duration_since(at) < TELL_EVERY) {
                return;
            }
            inside.told_at = Some(now);
            std::mem::take(&mut inside.untold)
        };
        let Bounds { most, most_of_peer, who, most_setting, most_of_peer_setting } = self.bounds;
        let (limit, field) = match full {
            Full::All => (most, most_setting),
            Full::Peer => (most_of_peer, most_of_peer_setting),
        };
        tracing::warn!(
            %peer, refused, limit,
            "{who} have too many connections, and new ones are closed: they should keep theirs open, or raise `{field}`"
        );
    }

    /// Waits until nobody is inside.
    pub async fn emptied(&self) {
        while self.lock().all > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut inside = self.doors.lock();
        inside.all = inside.all.saturating_sub(1);
        if let Some(count) = inside.peers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                inside.peers.remove(&self.peer);
            }
        }
    }
}

fn party(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            const HOST: u128 = u64::MAX as u128;
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !HOST))
        }
        address => address,
    }
}
