//! The orders that the processes are given, and their answers: one line of JSON each.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::process::Usage;

/// The two forms of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    /// Incremental: `DeltaAggregatedResources`
    Delta,
    /// State of the world: `StreamAggregatedResources`
    Sotw,
}

impl Variant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Sotw => "sotw",
        }
    }
}

/// An order to the server.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum ServerCommand {
    /// Change the endpoints of one cluster. Generations grow by one; the first one is published at the start.
    PublishOne { generation: u32, cluster: usize },
    /// Change the weight of every endpoint of every cluster.
    PublishAll { generation: u32 },
    /// Tell what was used.
    Usage,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ServerReply {
    Ready {
        address: std::net::SocketAddr,
    },
    /// Published; `at_ns` is the time of the order, before anything was built or encoded.
    Published {
        at_ns: u64,
    },
    Usage(Usage),
    Failed {
        reason: String,
    },
}

/// Whose progress counts: that of one cluster, or that of the cluster that is furthest behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Watched {
    One(usize),
    All,
}

/// An order to the load client.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ClientCommand {
    /// Open every stream, and wait until each has acknowledged its clusters and all their endpoints.
    Open,
    /// Take the times of these clusters from now on.
    Watch(Watched),
    /// Wait until every stream that is not stalled has this generation of the watched clusters.
    Await { generation: u32 },
    /// Note the delays of what was published: generations and their times.
    Collect { published: Vec<(u32, u64)> },
    /// Tell the delays noted since the last time.
    Summary,
    /// Stop reading on every other connection, or go on.
    Stall(bool),
    /// Compare every stream with the newest generation of each cluster.
    Check { newest: Vec<u32> },
    /// Tell what was used and received.
    Usage,
    /// Close every connection.
    Close,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ClientReply {
    /// The answer to most orders.
    Done(Usage),
    /// The answer to `Open` and `Await`: `missing` streams did not get there in time.
    Reached {
        missing: usize,
        first_ns: u64,
        last_ns: u64,
        usage: Usage,
    },
    Summary(Summary),
    Checked(Checked),
    Usage {
        usage: Usage,
        received: Received,
    },
    Failed {
        reason: String,
    },
}

/// Delays from publishing to the client, over all publishes and streams.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) samples: usize,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
    /// The slowest client: the median over the publishes.
    pub(crate) last_ns: u64,
    /// Samples that a newer state satisfied, which had overtaken the published one.
    pub(crate) overtaken: usize,
}

/// What the streams received.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) responses: u64,
    /// Endpoint lists that were newer than what the stream had.
    pub(crate) updates: u64,
    /// Endpoint lists that the stream had already.
    pub(crate) repeated: u64,
    pub(crate) bytes: u64,
}

/// The outcome of the comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// Streams without the newest state of some cluster.
    pub(crate) behind: usize,
    /// Times that an older state came after a newer one.
    pub(crate) reordered: u64,
    /// Streams that ended or received what they could not read, with the first reason.
    pub(crate) failed: usize,
    pub(crate) reason: Option<String>,
}

/// Reads orders until the other side is gone.
pub(crate) fn commands<C: DeserializeOwned>() -> impl Iterator<Item = Result<C>> {
    io::stdin().lock().lines().map(|line| {
        let line = line.context("cannot read an order")?;
        serde_json::from_str(&line).with_context(|| format!("no such order: {line}"))
    })
}

/// Writes an answer.
pub(crate) fn reply(reply: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}
