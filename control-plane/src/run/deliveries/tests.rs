use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig,
};
use envoy_types::pb::envoy::config::core::v3::{AggregatedConfigSource, ConfigSource, config_source};
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, cluster_load_assignment::Policy};
use envoy_types::pb::google::protobuf::UInt32Value;

use clairvoy_xds::{ServerOptions, Snapshot, SnapshotBuilder, XdsServer};

use super::*;

/// A state with clusters whose assignments differ by a number.
fn state(models: &[(&str, u32)]) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    builder.allow_empty_assignments();
    for (name, number) in models {
        let source = config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {});
        builder.cluster(Cluster {
            name: (*name).to_owned(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(ConfigSource {
                    config_source_specifier: Some(source),
                    ..ConfigSource::default()
                }),
                ..EdsClusterConfig::default()
            }),
            ..Cluster::default()
        });
        let policy =
            Policy { overprovisioning_factor: Some(UInt32Value { value: *number }), ..Policy::default() };
        builder.assignment(ClusterLoadAssignment {
            cluster_name: (*name).to_owned(),
            policy: Some(policy),
            ..ClusterLoadAssignment::default()
        });
    }
    builder.build().unwrap()
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn decisions(number: u128, models: &[&str]) -> Vec<(Uuid, String)> {
    let numbered = models.iter().zip(0..);
    numbered.map(|(model, index)| (Uuid::from_u128(number + index), (*model).to_owned())).collect()
}

fn ids(rows: &[AcknowledgementRow]) -> Vec<u128> {
    rows.iter().map(|row| row.decision_id.as_u128()).collect()
}

#[test]
fn a_decision_is_told_of_once_and_only_where_it_changed_something() {
    let server = XdsServer::new(ServerOptions::single_group("edge"));
    let mut deliveries = Deliveries::default();
    let first: Vec<Delivery> = server.publish("edge", state(&[("a", 1), ("b", 1)])).into_iter().collect();
    assert!(deliveries.watch(decisions(1, &["a"]), first, at(0)).is_empty());
    assert!(deliveries.settle(at(9)).is_empty(), "Envoys may come for the first state");
    let rows = deliveries.settle(at(10));
    assert_eq!((ids(&rows), rows[0].envoys), (vec![1], 0));

    assert!(server.publish("edge", state(&[("a", 1), ("b", 1)])).is_none(), "nothing new");
    let second: Vec<Delivery> = server.publish("edge", state(&[("a", 1), ("b", 2)])).into_iter().collect();
    deliveries.watch(decisions(10, &["a", "b"]), second, at(20));
    assert_eq!(ids(&deliveries.settle(at(20))), [11], "of a nothing was new, and nobody is to answer");
    assert!(deliveries.settle(at(60)).is_empty());
}

#[test]
fn many_publications_do_not_pile_up_and_none_is_forgotten() {
    let server = XdsServer::new(ServerOptions::single_group("edge"));
    let mut deliveries = Deliveries::default();
    let mut closed = Vec::new();
    for number in 0..100 {
        // A group of its own each, whose first state waits for Envoys.
        let sent: Vec<Delivery> =
            server.publish(&format!("g{number}"), state(&[("a", 1)])).into_iter().collect();
        closed.extend(deliveries.watch(decisions(number, &["a"]), sent, at(0)));
    }
    assert_eq!(ids(&closed), (0..36).collect::<Vec<_>>());
    assert_eq!(ids(&deliveries.close()), (36..100).collect::<Vec<_>>());
    assert!(deliveries.close().is_empty());
}

#[test]
fn groups_add_up() {
    let second = Some(Duration::from_secs(1));
    let refused = (0..12).map(|node| (format!("edge-{node}").into(), "bad".to_owned())).collect();
    let receipts = [
        Receipt { clients: 3, accepted: 2, left: 1, first: second, last: second, ..Receipt::default() },
        Receipt {
            clients: 13,
            accepted: 1,
            refused,
            first: second.map(|s| s / 2),
            last: second.map(|s| s * 2),
            left: 0,
        },
    ];
    let row = summed_up(Uuid::nil(), at(0), receipts.into_iter());
    assert_eq!((row.envoys, row.accepted, row.refused, row.gone), (16, 3, 12, 1));
    assert_eq!((row.first_seconds, row.last_seconds), (Some(0.5), Some(2.0)));
    assert_eq!(row.refusals.len(), 8);
}
