//! How the requests really went: counted at the simulated servers.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
};

/// Seconds over which a share is measured.
const WINDOW_SECONDS: f64 = 10.0;

/// The last seconds of what each server of one model has taken.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    samples: VecDeque<(f64, HashMap<SocketAddr, u64>)>,
}

impl Traffic {
    /// Adds the counts at `at` seconds.
    pub(super) fn sample(&mut self, at: f64, taken: HashMap<SocketAddr, u64>) {
        self.samples.push_back((at, taken));
        while self.samples.front().is_some_and(|(time, _)| at - time > WINDOW_SECONDS + 0.5) {
            self.samples.pop_front();
        }
    }

    /// The part of the requests of the last ten seconds that went to `address`, or nothing without requests.
    pub(super) fn share(&self, address: SocketAddr) -> Option<f64> {
        let ((_, first), (_, last)) = (self.samples.front()?, self.samples.back()?);
        let since = |(server, count): (&SocketAddr, &u64)| {
            count.saturating_sub(first.get(server).copied().unwrap_or(0))
        };
        let total: u64 = last.iter().map(since).sum();
        let own = since((&address, last.get(&address)?));
        (total > 0).then(|| own as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_the_last_seconds_only() {
        let [a, b] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
        let mut traffic = Traffic::default();
        assert_eq!(traffic.share(a), None);
        traffic.sample(0.0, HashMap::from([(a, 0)]));
        traffic.sample(5.0, HashMap::from([(a, 100)]));
        traffic.sample(15.0, HashMap::from([(a, 110), (b, 30)]));
        assert_eq!(traffic.share(a), Some(0.25));
    }
}
