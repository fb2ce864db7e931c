//! Account of what every stream has, since when, and in which order it came.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::monotonic_ns;
use crate::protocol::{Checked, Received, Summary, Watched};
use crate::stats::percentile;
use crate::wire::Malformed;

const ALL: usize = usize::MAX;

/// The account of all streams.
#[derive(Debug)]
pub(crate) struct Ledger {
    streams: Vec<Mutex<Stream>>,
    /// Number of the watched cluster, or [`ALL`].
    watched: AtomicUsize,
    failed: AtomicBool,
    failures: Mutex<Vec<String>>,
    delays: Mutex<Delays>,
}

/// The account of one stream.
#[derive(Debug)]
struct Stream {
    /// The generation of each cluster; 0 before the first.
    held: Vec<u32>,
    /// The generation of what is watched.
    progress: u32,
    arrivals: Vec<Arrival>,
    stalled: bool,
    reordered: u64,
    received: Received,
}

/// What is watched went from one generation to another.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    after: u32,
    upto: u32,
    at_ns: u64,
}

#[derive(Debug, Default)]
struct Delays {
    all: Vec<u64>,
    /// The longest of each publish.
    last: Vec<u64>,
    overtaken: usize,
}

impl Stream {
    fn new(clusters: usize) -> Self {
        Self {
            held: vec![0; clusters],
            progress: 0,
            arrivals: Vec::new(),
            stalled: false,
            reordered: 0,
            received: Received::default(),
        }
    }

    fn generation(&self, watched: usize) -> u32 {
        match watched {
            ALL => self.held.iter().copied().min().unwrap_or(0),
            one => self.held.get(one).copied().unwrap_or(0),
        }
    }
}

impl Ledger {
    pub(crate) fn new(streams: usize, clusters: usize) -> Self {
        Self {
            streams: (0..streams).map(|_| Mutex::new(Stream::new(clusters))).collect(),
            watched: AtomicUsize::new(ALL),
            failed: AtomicBool::new(false),
            failures: Mutex::default(),
            delays: Mutex::default(),
        }
    }

    /// Enters a response with these endpoint lists: numbers of clusters and their generations.
    pub(crate) fn enter(
        &self,
        stream: usize,
        bytes: usize,
        assignments: impl Iterator<Item = Result<(usize, u32), Malformed>>,
    ) -> Result<(), Malformed> {
        let mut stream = lock(&self.streams[stream]);
        let stream = &mut *stream;
        stream.received.responses += 1;
        stream.received.bytes += bytes as u64;
        for assignment in assignments {
            let (cluster, generation) = assignment?;
            let held = stream.held.get_mut(cluster).ok_or(Malformed("a cluster that was not asked for"))?;
            match generation.cmp(held) {
                std::cmp::Ordering::Greater => stream.received.updates += 1,
                std::cmp::Ordering::Equal => stream.received.repeated += 1,
                std::cmp::Ordering::Less => stream.reordered += 1,
            }
            *held = generation;
        }
        let generation = stream.generation(self.watched.load(Ordering::Relaxed));
        if generation > stream.progress {
            let arrival = Arrival { after: stream.progress, upto: generation, at_ns: monotonic_ns() };
            stream.arrivals.push(arrival);
        }
        stream.progress = generation;
        Ok(())
    }

    /// Enters that a stream ended, or that its connection did.
    pub(crate) fn fail(&self, reason: String) {
        lock(&self.failures).push(reason);
        self.failed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Forgets what the streams have, as a proxy does that starts anew.
    pub(crate) fn clear(&self) {
        for stream in &self.streams {
            let mut stream = lock(stream);
            stream.held.fill(0);
            stream.progress = 0;
            stream.arrivals = Vec::new();
        }
    }

    pub(crate) fn watch(&self, watched: Watched) {
        let watched = match watched {
            Watched::All => ALL,
            Watched::One(cluster) => cluster,
        };
        self.watched.store(watched, Ordering::Relaxed);
        for stream in &self.streams {
            let mut stream = lock(stream);
            stream.arrivals.clear();
            stream.progress = stream.generation(watched);
        }
    }

    pub(crate) fn set_stalled(&self, is_stalled: impl Fn(usize) -> bool) {
        for (number, stream) in self.streams.iter().enumerate() {
            lock(stream).stalled = is_stalled(number);
        }
    }

    /// True when every stream that is not stalled has the generation. The first `arrived` streams are known
    /// to have it, which makes asking again cheap.
    pub(crate) fn have_reached(&self, generation: u32, arrived: &mut usize) -> bool {
        for stream in &self.streams[*arrived..] {
            let stream = lock(stream);
            if !stream.stalled && stream.progress < generation {
                return false;
            }
            *arrived += 1;
        }
        true
    }

    /// How many streams lack the generation, without the stalled ones, and when the last of the others got it.
    pub(crate) fn missing(&self, generation: u32) -> (usize, u64) {
        let (mut missing, mut last_ns) = (0, 0);
        for stream in &self.streams {
            let stream = lock(stream);
            if stream.stalled {
                continue;
            }
            missing += usize::from(stream.progress < generation);
            let arrival = stream.arrivals.iter().find(|arrival| arrival.upto >= generation);
            last_ns = last_ns.max(arrival.map_or(0, |arrival| arrival.at_ns));
        }
        (missing, last_ns)
    }

    /// Adds the delays of these publishes (generation, time), and forgets the arrivals.
    pub(crate) fn collect(&self, published: &[(u32, u64)]) {
        let mut delays = lock(&self.delays);
        let mut last = vec![0; published.len()];
        for stream in &self.streams {
            let mut stream = lock(stream);
            let arrivals = std::mem::take(&mut stream.arrivals);
            if stream.stalled {
                continue;
            }
            for arrival in arrivals {
                let satisfied = published
                    .iter()
                    .zip(&mut last)
                    .filter(|((generation, _), _)| (arrival.after + 1..=arrival.upto).contains(generation));
                let mut count = 0_usize;
                for ((_, at_ns), last) in satisfied {
                    let delay = arrival.at_ns.saturating_sub(*at_ns);
                    *last = delay.max(*last);
                    delays.all.push(delay);
                    count += 1;
                }
                delays.overtaken += count.saturating_sub(1);
            }
        }
        delays.last.extend(last);
    }

    /// Returns the summary of the delays and forgets them; `None` if there are none.
    pub(crate) fn summary(&self) -> Option<Summary> {
        let Delays { mut all, mut last, overtaken } = std::mem::take(&mut *lock(&self.delays));
        all.sort_unstable();
        last.sort_unstable();
        Some(Summary {
            samples: all.len(),
            p50_ns: percentile(&all, 50),
            p99_ns: percentile(&all, 99),
            max_ns: *all.last()?,
            last_ns: percentile(&last, 50),
            overtaken,
        })
    }

    pub(crate) fn received(&self) -> Received {
        self.streams.iter().map(|stream| lock(stream).received).fold(Received::default(), |sum, one| {
            Received {
                responses: sum.responses + one.responses,
                updates: sum.updates + one.updates,
                repeated: sum.repeated + one.repeated,
                bytes: sum.bytes + one.bytes,
            }
        })
    }

    pub(crate) fn check(&self, newest: &[u32]) -> Checked {
        let failures = lock(&self.failures);
        let mut checked =
            Checked { behind: 0, reordered: 0, failed: failures.len(), reason: failures.first().cloned() };
        for stream in &self.streams {
            let stream = lock(stream);
            checked.behind += usize::from(stream.held != newest);
            checked.reordered += stream.reordered;
        }
        checked
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
