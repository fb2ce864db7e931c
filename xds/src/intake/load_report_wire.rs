//! Load reports on the wire. The node comes with each of them and is read only from the first.

use bytes::Bytes;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterStats, EndpointLoadMetricStats, UpstreamEndpointStats, UpstreamLocalityStats,
};
use prost::{DecodeError, Message};

use super::gate::Size;
use super::node::NodeFields;

/// `envoy.service.load_stats.v3.LoadStatsRequest` without the stats.
#[derive(Clone, PartialEq, prost::Message)]
struct NodeOnly {
    #[prost(message, optional, tag = "1")]
    node: Option<NodeFields>,
}

/// `envoy.service.load_stats.v3.LoadStatsRequest` without the node.
#[derive(Clone, PartialEq, prost::Message)]
struct StatsOnly {
    #[prost(message, repeated, tag = "2")]
    cluster_stats: Vec<ClusterStats>,
}

/// Counts the clusters: an element takes no memory.
#[derive(Clone, PartialEq, prost::Message)]
struct Clusters {
    #[prost(message, repeated, tag = "2")]
    clusters: Vec<()>,
}

/// Counts the localities of all clusters: a message field that comes again is merged into the first.
#[derive(Clone, PartialEq, prost::Message)]
struct Localities {
    #[prost(message, optional, tag = "2")]
    clusters: Option<Clusters>,
}

/// Counts what all localities list.
#[derive(Clone, PartialEq, prost::Message)]
struct Lists {
    #[prost(message, optional, tag = "2")]
    clusters: Option<ClusterLists>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClusterLists {
    #[prost(message, optional, tag = "2")]
    localities: Option<LocalityLists>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LocalityLists {
    #[prost(message, repeated, tag = "5")]
    metrics: Vec<()>,
    #[prost(message, repeated, tag = "7")]
    endpoints: Vec<()>,
}

pub(super) fn node(request: &Bytes) -> Result<NodeFields, DecodeError> {
    Ok(NodeOnly::decode(request.clone())?.node.unwrap_or_default())
}

pub(super) fn cluster_stats(request: &Bytes) -> Result<Vec<ClusterStats>, DecodeError> {
    Ok(StatsOnly::decode(request.clone())?.cluster_stats)
}

/// The size of the stats. A few bytes on the wire can make hundreds in memory, so the parts are counted.
pub(super) fn size(request: &Bytes) -> Result<Size, DecodeError> {
    let clusters = Clusters::decode(request.clone())?.clusters.len();
    if clusters == 0 {
        return Ok(Size::default());
    }
    let localities = Localities::decode(request.clone())?.clusters.unwrap_or_default().clusters.len();
    let lists = Lists::decode(request.clone())?.clusters.unwrap_or_default().localities.unwrap_or_default();
    let bytes = [
        (clusters, size_of::<ClusterStats>()),
        (localities, size_of::<UpstreamLocalityStats>()),
        (lists.metrics.len(), size_of::<EndpointLoadMetricStats>()),
        (lists.endpoints.len(), size_of::<UpstreamEndpointStats>()),
    ];
    let bytes = bytes.iter().map(|(count, size)| count * size).sum::<usize>() + request.len();
    Ok(Size { entries: clusters, bytes })
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{Extension, Locality, Node};
    use envoy_types::pb::envoy::service::load_stats::v3::LoadStatsRequest;
    use proptest::prelude::*;

    use super::*;

    fn stats(clusters: usize, localities: usize, endpoints: usize, metrics: usize) -> Vec<ClusterStats> {
        let locality = UpstreamLocalityStats {
            locality: Some(Locality { region: "r".into(), ..Default::default() }),
            total_issued_requests: 7,
            load_metric_stats: vec![EndpointLoadMetricStats::default(); metrics],
            upstream_endpoint_stats: vec![UpstreamEndpointStats::default(); endpoints],
            ..Default::default()
        };
        let cluster = |number| ClusterStats {
            cluster_name: format!("cluster-{number}"),
            upstream_locality_stats: vec![locality.clone(); localities],
            ..Default::default()
        };
        (0..clusters).map(cluster).collect()
    }

    fn length_delimited(tag: u32, content: &[u8]) -> Vec<u8> {
        let mut field = Vec::new();
        prost::encode_length_delimiter((tag << 3 | 2) as usize, &mut field).unwrap();
        prost::encode_length_delimiter(content.len(), &mut field).unwrap();
        field.extend_from_slice(content);
        field
    }

    proptest! {
        #[test]
        fn whatever_the_node_is_the_stats_are_those_of_a_full_decoding(
            id in ".{0,20}",
            features in prop::collection::vec(".{0,20}", 0..4),
            extensions in prop::collection::vec(".{0,40}", 0..20),
            sizes in (0..4usize, 0..3usize, 0..3usize, 0..3usize),
            unknown in prop::collection::vec((20..1000u32, prop::collection::vec(any::<u8>(), 0..40)), 0..4),
        ) {
            let extensions = extensions.into_iter();
            let node = Node {
                id,
                client_features: features,
                extensions: extensions.map(|name| Extension { name, ..Default::default() }).collect(),
                locality: Some(Locality { zone: "z".into(), ..Default::default() }),
                ..Default::default()
            };
            let (clusters, localities, endpoints, metrics) = sizes;
            let cluster_stats = stats(clusters, localities, endpoints, metrics);
            let request = LoadStatsRequest { node: Some(node), cluster_stats };
            let mut encoded = request.encode_to_vec();
            for (tag, content) in unknown {
                encoded.extend(length_delimited(tag, &content));
            }
            let encoded = Bytes::from(encoded);
            let full = LoadStatsRequest::decode(encoded.clone()).unwrap();
            prop_assert_eq!(cluster_stats_of(&encoded), full.cluster_stats);
            let node = super::node(&encoded).unwrap();
            let full = full.node.unwrap();
            prop_assert_eq!((node.id, node.client_features, node.locality),
                (full.id, full.client_features, full.locality));
        }

        #[test]
        fn bytes_that_are_no_node_are_passed_over(
            node in prop::collection::vec(any::<u8>(), 0..200),
            clusters in 0..4usize,
        ) {
            let mut encoded = length_delimited(1, &node);
            let cluster_stats = stats(clusters, 1, 0, 0);
            encoded.extend(LoadStatsRequest { node: None, cluster_stats: cluster_stats.clone() }.encode_to_vec());
            prop_assert_eq!(cluster_stats_of(&encoded.into()), cluster_stats);
        }

        #[test]
        fn the_size_counts_what_decoding_makes(
            clusters in 1..4usize, localities in 0..4usize, endpoints in 0..4usize, metrics in 0..4usize,
        ) {
            let cluster_stats = stats(clusters, localities, endpoints, metrics);
            let encoded = Bytes::from(LoadStatsRequest { node: None, cluster_stats }.encode_to_vec());
            let each = localities * (size_of::<UpstreamLocalityStats>()
                + endpoints * size_of::<UpstreamEndpointStats>()
                + metrics * size_of::<EndpointLoadMetricStats>());
            let bytes = encoded.len() + clusters * (size_of::<ClusterStats>() + each);
            prop_assert_eq!(size(&encoded).unwrap(), Size { entries: clusters, bytes });
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            let _ = (node(&bytes), size(&bytes), cluster_stats(&bytes));
        }
    }

    fn cluster_stats_of(encoded: &Bytes) -> Vec<ClusterStats> {
        super::cluster_stats(encoded).unwrap()
    }
}
