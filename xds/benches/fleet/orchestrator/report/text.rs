//! The words around the tables.

use super::super::Args;

/// What the columns of the main table mean.
pub(super) const COLUMNS: &str = "\
- start: from the first connection until every stream has all clusters and endpoints; the server's CPU for it
- change: one cluster's endpoints change in a quiet fleet; from the order to publish (before anything is built
  or encoded) until the client has read it, over all clients and changes; last client: the slowest of a change,
  median over the changes; CPU per change: of the server, with building, encoding and acknowledgements
- churn: every weight of every endpoint changes each second; the same time, for the state or a newer one;
  cores: CPU of the server by time; CPU per update: by endpoint list delivered to a client
- memory per stream: of the server (VmRSS) after the start, beyond that without streams, by streams
- load client, cores: its CPU during start / changes / churn, by time. Above nine tenths of its threads it
  could itself be what is measured, and the row is void
- overtaken: of the states published under churn, those that a client never had because a newer one came first

The rows of Go are its reference library. Those in turn with ours were measured in the same run, with the same load
client, by a server that is not part of this repository: `--peer PROGRAM` takes any that obeys the orders of the role
`server`. Recorded ones come from another run, machine (of this size) and load client: ratios to them say less.
";

/// What every run has proved.
pub(super) const CHECKS: &str = "\
### Checks

A run counts only if every stream ended with the newest state of every cluster, none received an older state of
a cluster after a newer one, none ended early, and every published state reached every client or was overtaken
by a newer one that did.
";

/// The title, the machine and the settings.
pub(super) fn head(args: &Args, machine: &str) -> String {
    let date = chrono::Utc::now().format("%Y-%m-%d");
    let Args { clusters, endpoints, changes, seconds, runs, workers, client_threads, node_bytes, .. } = args;
    format!(
        "## xDS server

Written by `cargo xtask bench xds` on {date}, on {machine}. Server and load client are processes of one
machine and talk over TCP on its loopback address.

{clusters} clusters of {endpoints} endpoints. {changes} changes, {seconds} s of churn; number of runs: {runs}. Told are medians, with the
least and the greatest in brackets. Threads of the server: {workers}, of the load client: {client_threads}. Each first request has a node with
{node_bytes} bytes of extensions (a real Envoy lists about 50,000: `--node-bytes`). The client has the windows of Envoy
(16 MiB for a stream, 24 MiB for a connection) and acknowledges every response.
"
    )
}
