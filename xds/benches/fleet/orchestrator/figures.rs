//! What is measured, and the figures to compare with.

use super::{Load, Server};
use crate::stats::Spread;

/// The figures of one row of the main table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) start_ms: f64,
    pub(super) start_cpu_seconds: f64,
    pub(super) change_p50_ms: f64,
    pub(super) change_p99_ms: f64,
    pub(super) change_last_ms: f64,
    pub(super) change_cpu_ms: f64,
    pub(super) churn_p99_ms: f64,
    pub(super) churn_cores: f64,
    pub(super) update_cpu_us: f64,
    pub(super) stream_kib: f64,
}

/// A column: its title and its figure.
pub(super) type Column = (&'static str, fn(&Figures) -> f64);

pub(super) const COLUMNS: [Column; 10] = [
    ("start, ms", |f| f.start_ms),
    ("start, CPU s", |f| f.start_cpu_seconds),
    ("change p50, ms", |f| f.change_p50_ms),
    ("p99, ms", |f| f.change_p99_ms),
    ("last client, ms", |f| f.change_last_ms),
    ("CPU per change, ms", |f| f.change_cpu_ms),
    ("churn p99, ms", |f| f.churn_p99_ms),
    ("cores", |f| f.churn_cores),
    ("CPU per update, µs", |f| f.update_cpu_us),
    ("memory per stream, KiB", |f| f.stream_kib),
];

/// One run of start, change and churn.
#[derive(Clone, Copy, Debug)]
pub(super) struct FleetRun {
    pub(super) figures: Figures,
    /// Cores that the load client used during start, changes and churn.
    pub(super) client_cores: [f64; 3],
    /// Memory per stream after the churn.
    pub(super) churned_kib: f64,
    /// Share of the published states that a newer one overtook.
    pub(super) overtaken_per_cent: f64,
    /// Endpoint lists that were sent though the client had them, for each that was new.
    pub(super) repeated_per_update: f64,
}

/// Memory of the server in MiB while 5,000 streams come and go.
#[derive(Clone, Copy, Debug)]
pub(super) struct StormRun {
    pub(super) idle: f64,
    pub(super) full: f64,
    pub(super) gone: f64,
    pub(super) full_again: f64,
    pub(super) gone_again: f64,
    pub(super) back_ms: f64,
}

/// Churn of half of the clients, without and with the other half stalled.
#[derive(Clone, Copy, Debug)]
pub(super) struct StalledRun {
    pub(super) free_p99_ms: f64,
    pub(super) stalled_p99_ms: f64,
    /// Memory per stalled stream at its highest, beyond that before.
    pub(super) held_kib: f64,
    /// Time until the stalled clients have the newest state, once they read again.
    pub(super) caught_up_ms: f64,
    pub(super) client_cores: f64,
}

/// The runs of a scenario, or why there are none.
#[derive(Clone, Debug)]
pub(super) struct Row<R> {
    pub(super) name: &'static str,
    pub(super) load: Load,
    pub(super) runs: Vec<R>,
    pub(super) failure: Option<String>,
}

impl<R> Row<R> {
    pub(super) fn new(name: &'static str, load: Load) -> Self {
        Self { name, load, runs: Vec::new(), failure: None }
    }

    pub(super) fn title(&self) -> String {
        let Load { variant, streams, server, .. } = self.load;
        let whose = if server == Server::Peer { " of the peer" } else { "" };
        format!("{}: {streams} {} streams{whose}", self.name, variant.name())
    }

    /// The spread of a figure over the runs; `None` when a run failed.
    pub(super) fn spread(&self, figure: impl Fn(&R) -> f64) -> Option<Spread> {
        self.failure.is_none().then(|| Spread::of(self.runs.iter().map(figure)))?
    }
}

/// A row of the main table, and that of a peer measured in turn with it.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    pub(super) ours: Row<FleetRun>,
    pub(super) peer: Option<Row<FleetRun>>,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured {
    pub(super) fleets: Vec<Fleet>,
    pub(super) storm: Option<Row<StormRun>>,
    pub(super) stalled: Option<Row<StalledRun>>,
    pub(super) big: Option<Row<FleetRun>>,
}

impl Measured {
    pub(super) fn failures(&self) -> Vec<String> {
        fn of<R>(row: &Row<R>) -> Option<String> {
            row.failure.as_ref().map(|reason| format!("{}: {reason}", row.title()))
        }
        let fleets = self.fleets.iter().flat_map(|fleet| [Some(&fleet.ours), fleet.peer.as_ref()]);
        let fleets = fleets.flatten().filter_map(of);
        let storm = self.storm.as_ref().and_then(of);
        let stalled = self.stalled.as_ref().and_then(of);
        let big = self.big.as_ref().and_then(of);
        fleets.chain(storm).chain(stalled).chain(big).collect()
    }
}

/// The figures of another server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) streams: usize,
    pub(super) is_delta: bool,
    pub(super) figures: Figures,
}

/// The peer that the goals are set against.
pub(super) const CACHE: &str = "Go, cache per resource";
const SNAPSHOT: &str = "Go, snapshot per fleet";

/// The Go reference library: 50 clusters of 20 endpoints, a connection per stream, server and load client
/// together on 2 cores. Another run, on a machine of that size.
pub(super) const PEERS: [Peer; 10] = [
    peer(CACHE, 100, true, [66.0, 0.05, 4.0, 18.0, 9.0, 7.0, 25.0, 0.02, 2.9, 216.0]),
    peer(CACHE, 1000, true, [664.0, 0.51, 40.0, 143.0, 66.0, 83.0, 201.0, 0.16, 2.9, 230.0]),
    peer(CACHE, 2000, true, [1113.0, 0.88, 86.0, 221.0, 160.0, 192.0, 360.0, 0.34, 3.2, 140.0]),
    peer(CACHE, 5000, true, [3538.0, 1.93, 303.0, 852.0, 541.0, 531.0, 2228.0, 0.58, 3.0, 108.0]),
    peer(SNAPSHOT, 100, true, [263.0, 0.18, 12.0, 34.0, 19.0, 15.0, 311.0, 0.13, 24.0, 235.0]),
    peer(SNAPSHOT, 1000, true, [2051.0, 1.33, 78.0, 188.0, 127.0, 103.0, 3342.0, 0.64, 21.8, 155.0]),
    peer(SNAPSHOT, 2000, true, [4424.0, 2.75, 180.0, 541.0, 303.0, 214.0, 6160.0, 0.53, 22.2, 134.0]),
    peer(SNAPSHOT, 100, false, [168.0, 0.12, 88.0, 213.0, 160.0, 120.0, 201.0, 0.13, 23.2, 167.0]),
    peer(SNAPSHOT, 1000, false, [2198.0, 1.33, 1114.0, 2621.0, 1802.0, 1110.0, 3539.0, 0.62, 23.1, 110.0]),
    peer(SNAPSHOT, 2000, false, [3919.0, 2.52, 2294.0, 4194.0, 3867.0, 2397.0, 6160.0, 0.62, 22.6, 87.0]),
];

const fn peer(name: &'static str, streams: usize, is_delta: bool, columns: [f64; 10]) -> Peer {
    let [
        start_ms,
        start_cpu_seconds,
        change_p50_ms,
        change_p99_ms,
        change_last_ms,
        change_cpu_ms,
        churn_p99_ms,
        churn_cores,
        update_cpu_us,
        stream_kib,
    ] = columns;
    let figures = Figures {
        start_ms,
        start_cpu_seconds,
        change_p50_ms,
        change_p99_ms,
        change_last_ms,
        change_cpu_ms,
        churn_p99_ms,
        churn_cores,
        update_cpu_us,
        stream_kib,
    };
    Peer { name, streams, is_delta, figures }
}

/// A goal: not more than this part of the peer's figure, or than the figure itself.
pub(super) struct Target {
    pub(super) what: &'static str,
    pub(super) ratio: f64,
    pub(super) figure: fn(&Figures) -> f64,
    /// The window in which the load client must not be at its limit, by its place in
    /// [`FleetRun::client_cores`]; memory and CPU do not depend on it.
    pub(super) window: Option<usize>,
}

/// The goals at 2,000 delta streams, against the cache per resource.
pub(super) const TARGETS: [Target; 5] = [
    Target { what: "CPU per change", ratio: 0.2, figure: |f| f.change_cpu_ms, window: Some(1) },
    Target { what: "CPU per update under churn", ratio: 0.22, figure: |f| f.update_cpu_us, window: Some(2) },
    Target { what: "memory per stream", ratio: 0.2, figure: |f| f.stream_kib, window: None },
    Target { what: "last client of a change", ratio: 0.5, figure: |f| f.change_last_ms, window: Some(1) },
    Target { what: "CPU of the start", ratio: 0.3, figure: |f| f.start_cpu_seconds, window: Some(0) },
];

/// The number of streams at which the goals are set.
pub(super) const TARGET_STREAMS: usize = 2000;

/// State of the world against our own delta, in CPU per change, CPU per update and memory.
pub(super) const SOTW_RATIO: f64 = 1.3;
