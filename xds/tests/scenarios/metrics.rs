//! What the metrics show: F7.

use std::net::SocketAddr;

use clairvoy_xds::ResourceType::Cluster;
use clairvoy_xds::{Metrics, ServerOptions, Snapshot, SnapshotBuilder, SyncState, XdsServer};
use envoy_types::pb::envoy::config::core::v3::Node;
use prometheus_client::registry::Registry;
use tonic::Code;

use crate::fixtures;
use crate::harness::{Client, Delta, Sotw, Variant, connect, eventually, in_sync, serve};

/// The metrics of one server.
pub(crate) struct Measured(Registry);

/// A server, and its metrics.
pub(crate) fn measured(options: ServerOptions) -> (XdsServer, Measured) {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    (XdsServer::with_metrics(options, metrics), Measured(registry))
}

impl Measured {
    pub(crate) fn read(&self) -> Seen {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0).unwrap();
        Seen(text)
    }
}

/// One reading of the metrics.
pub(crate) struct Seen(String);

impl Seen {
    /// The value of a series by its name and labels.
    pub(crate) fn value(&self, series: &str) -> f64 {
        let found = self.series().find(|(name, _)| *name == series);
        found.unwrap_or_else(|| panic!("{series} is missing in\n{}", self.0)).1
    }

    /// The sum over all labels.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        self.of(name).map(|(_, value)| value).sum()
    }

    /// The labels that a name comes with, in the order of the text.
    pub(crate) fn labels(&self, name: &str) -> Vec<&str> {
        self.of(name).map(|(labels, _)| labels).collect()
    }

    fn of(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        self.series().filter_map(move |(series, value)| {
            series.strip_prefix(name).filter(|rest| rest.starts_with('{')).map(|rest| (rest, value))
        })
    }

    fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        let samples = self.0.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name, value.parse().unwrap()))
    }
}

fn state(settings: u64) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.cluster(fixtures::cluster("a", settings)).assignment(fixtures::assignment("a", 1));
    builder.build().unwrap()
}

/// A client that has all clusters, and the name of its node.
async fn node<V: Variant>(address: SocketAddr, id: &str) -> Client<V> {
    let node = Node { id: id.into(), ..Default::default() };
    let first = V::with_node(V::request(Cluster, &[]), Some(node));
    let mut client = Client::<V>::open_on(connect(address).await, None, first).await.unwrap();
    client.expect_acked(Cluster).await;
    client
}

async fn in_sync_but_for(server: &XdsServer, others: usize) {
    let waiting = || server.clients().iter().filter(|client| client.sync != SyncState::InSync).count();
    eventually("the others are in sync", || waiting() == others).await;
}

async fn metrics_count<V: Variant>(variant: &str) {
    let (server, metrics) = measured(ServerOptions::single_group("all"));
    server.publish("all", state(1));
    let address = serve(&server).await;
    let mut other: Client<V> = node(address, "other").await;
    let mut client: Client<V> = node(address, "proxy").await;
    in_sync(&server).await;
    server.publish("all", state(2));
    let held = other.expect(Cluster).await;
    let refused = client.expect(Cluster).await;
    client.nack(&refused, "bad").await;
    in_sync_but_for(&server, 2).await;
    server.publish("all", state(3));
    server.publish("all", state(4));
    client.expect_acked(Cluster).await;
    in_sync_but_for(&server, 1).await;
    other.ack(&held).await;
    other.expect_acked(Cluster).await;
    in_sync(&server).await;
    let seen = metrics.read();
    let of_clusters = |name: &str| seen.value(&format!("xds_{name}{{type=\"CDS\"}}"));
    assert_eq!(seen.value(&format!("xds_streams{{variant=\"{variant}\"}}")), 2.0);
    assert_eq!(seen.sum("xds_streams"), 2.0);
    assert_eq!(seen.value("xds_publishes_total"), 4.0);
    assert_eq!(of_clusters("nacks_total"), 1.0);
    let responses = of_clusters("responses_total");
    assert!((6.0..=7.0).contains(&responses), "{responses}");
    assert_eq!(of_clusters("acks_total"), responses - 1.0);
    assert_eq!(of_clusters("resources_total"), responses);
    assert!(of_clusters("response_bytes_total") > 50.0 * responses);
    assert_eq!(of_clusters("encoded_responses_total") + of_clusters("shared_responses_total"), responses);
    assert!(of_clusters("merged_states_total") >= 1.0);
    assert_eq!(seen.value("xds_publish_to_ack_seconds_count"), responses - 1.0);
    assert_eq!(seen.value("xds_quarantined_resources"), 0.0);
    assert_eq!(seen.sum("xds_pending_acks"), 0.0);
}

#[tokio::test]
async fn f7_sotw_metrics_count_what_happens() {
    metrics_count::<Sotw>("sotw").await;
}

#[tokio::test]
async fn f7_delta_metrics_count_what_happens() {
    metrics_count::<Delta>("delta").await;
}

/// Who keeps the server waiting is seen while it does.
async fn the_slowest_is_named<V: Variant>() {
    let (server, metrics) = measured(ServerOptions::single_group("all"));
    server.publish("all", state(1));
    let address = serve(&server).await;
    let mut slow: Client<V> = node(address, "slow").await;
    let mut quick: Client<V> = node(address, "quick").await;
    in_sync(&server).await;
    server.publish("all", state(2));
    let held = slow.expect(Cluster).await;
    quick.expect_acked(Cluster).await;
    in_sync_but_for(&server, 1).await;
    let slowness =
        |id: &str| metrics.read().value(&format!("xds_slowest_client_seconds{{node_id=\"{id}\"}}"));
    eventually("slow is the slowest", || slowness("slow") > slowness("quick")).await;
    let seen = metrics.read();
    assert_eq!(seen.labels("xds_slowest_client_seconds")[0], "{node_id=\"slow\"}");
    assert_eq!(seen.value("xds_pending_acks{type=\"CDS\"}"), 1.0);
    assert_eq!(seen.sum("xds_pending_acks"), 1.0);
    slow.ack(&held).await;
    in_sync(&server).await;
    assert_eq!(metrics.read().sum("xds_pending_acks"), 0.0);
    drop((slow, quick));
    eventually("both are gone", || {
        let seen = metrics.read();
        seen.labels("xds_slowest_client_seconds").is_empty() && seen.sum("xds_streams") == 0.0
    })
    .await;
}

#[tokio::test]
async fn f7_sotw_the_slowest_client_is_named() {
    the_slowest_is_named::<Sotw>().await;
}

#[tokio::test]
async fn f7_delta_the_slowest_client_is_named() {
    the_slowest_is_named::<Delta>().await;
}

/// One encoding serves all clients that lack the same.
async fn encodings_are_shared<V: Variant>() {
    const CLIENTS: u16 = 10;
    let (server, metrics) = measured(ServerOptions::single_group("all"));
    server.publish("all", state(1));
    let address = serve(&server).await;
    let mut clients: Vec<Client<V>> = Vec::new();
    for i in 0..CLIENTS {
        clients.push(node(address, &i.to_string()).await);
    }
    in_sync(&server).await;
    server.publish("all", state(2));
    for client in &mut clients {
        client.expect_acked(Cluster).await;
    }
    in_sync(&server).await;
    let seen = metrics.read();
    assert_eq!(seen.value("xds_encoded_responses_total{type=\"CDS\"}"), 2.0, "once for each state");
    let shared = seen.value("xds_shared_responses_total{type=\"CDS\"}");
    assert_eq!(shared, f64::from(2 * (CLIENTS - 1)));
}

#[tokio::test]
async fn f7_sotw_encodings_are_shared() {
    encodings_are_shared::<Sotw>().await;
}

#[tokio::test]
async fn f7_delta_encodings_are_shared() {
    encodings_are_shared::<Delta>().await;
}

#[tokio::test]
async fn f7_refused_streams_are_counted() {
    let mut options = ServerOptions::single_group("all");
    options.max_streams = 1;
    let (server, metrics) = measured(options);
    server.publish("all", state(1));
    let address = serve(&server).await;
    let _client: Client<Sotw> = node(address, "proxy").await;
    let first = || Delta::request(Cluster, &[]);
    let refused = Client::<Delta>::open(address, first()).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(metrics.read().value("xds_streams_rejected_total"), 1.0);
    server.drain();
    let refused = Client::<Delta>::open(address, first()).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unavailable);
    let seen = metrics.read();
    assert_eq!(seen.value("xds_streams_rejected_total"), 2.0);
    assert_eq!(seen.value("xds_streams{variant=\"sotw\"}"), 1.0);
    assert_eq!(seen.value("xds_streams{variant=\"delta\"}"), 0.0);
}
