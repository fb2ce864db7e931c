use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// One sender has at most this part of what all of them share.
const PART: usize = 4;

/// Who sends: what opens the pools for it or, where nothing is asked for, where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// A token, by its place in the configuration.
    Token(usize),
    /// A name in certificates, by its place in the configuration.
    Client(usize),
    /// An address.
    Peer(Peer),
    /// Envoys, with what backends say in their answers.
    Envoys,
}

/// The other end of a connection: an IPv4 address, or the /64 that a machine of IPv6 has for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peer(IpAddr);

impl Peer {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                const HOST: u128 = u64::MAX as u128;
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !HOST))
            }
            address => address,
        })
    }

    /// That of a request that came by no connection.
    pub(super) fn none() -> Self {
        Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// How much is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) requests: usize,
    pub(super) points: usize,
    pub(super) bytes: usize,
}

impl Amount {
    fn each(self, other: Self, with: impl Fn(usize, usize) -> usize) -> Self {
        Self {
            requests: with(self.requests, other.requests),
            points: with(self.points, other.points),
            bytes: with(self.bytes, other.bytes),
        }
    }

    fn fits(self, part: Self) -> bool {
        self.requests <= part.requests && self.points <= part.points && self.bytes <= part.bytes
    }
}

/// What each sender has of something that all of them share.
#[derive(Debug)]
pub(super) struct Shares {
    part: Amount,
    taken: Mutex<HashMap<Sender, Amount>>,
}

/// What a sender has, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    shares: Arc<Shares>,
    sender: Sender,
    amount: Amount,
}

impl Shares {
    pub(super) fn new(whole: Amount) -> Self {
        let part = whole.each(whole, |whole, _| (whole / PART).max(1));
        Self { part, taken: Mutex::default() }
    }

    /// Takes more for a sender; none where that is beyond its part. One that has nothing may have one request of any size.
    pub(super) fn take(self: &Arc<Self>, sender: Sender, amount: Amount) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = taken.get(&sender).copied().unwrap_or_default();
        let sum = held.each(amount, usize::saturating_add);
        if held != Amount::default() && !sum.fits(self.part) {
            return None;
        }
        taken.insert(sender, sum);
        Some(Share { shares: Arc::clone(self), sender, amount })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(held) = taken.get_mut(&self.sender) else { return };
        *held = held.each(self.amount, usize::saturating_sub);
        if *held == Amount::default() {
            taken.remove(&self.sender);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_than_a_quarter_but_everybody_may_have_one() {
        let shares = Arc::new(Shares::new(Amount { requests: 8, points: 100, bytes: 1 }));
        let one = Amount { requests: 1, points: 10, bytes: 0 };
        let [first, other] = [Sender::Token(0), Sender::Token(1)];
        let held = [shares.take(first, one).unwrap(), shares.take(first, one).unwrap()];
        assert!(shares.take(first, one).is_none(), "a third request");
        let large = shares.take(other, Amount { points: 80, ..one }).unwrap();
        assert!(shares.take(other, one).is_none(), "more points than its part");
        drop((held, large));
        assert!(shares.taken.lock().unwrap().is_empty());
        assert!(shares.take(first, one).is_some());
    }

    #[test]
    fn a_machine_is_one_peer() {
        let peer = |address: &str| Peer::of(address.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::2:3:4"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.2"), peer("10.0.0.1"));
    }
}
