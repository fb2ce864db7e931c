//! Who sends.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Locality;

use crate::transport::Connection;

/// A node, as far as a receiver needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReportingNode {
    /// `Node.id`.
    pub id: String,
    /// `Node.cluster`.
    pub cluster: String,
    /// `Locality.region` of the node, empty if it has none.
    pub region: String,
    /// `Locality.zone`.
    pub zone: String,
    /// `Locality.sub_zone`.
    pub sub_zone: String,
    /// The names in the verified certificate of its connection, as in [`Peer::identities`](crate::Peer::identities):
    /// all else here is what the client says of itself.
    pub identities: Arc<[String]>,
}

/// The fields of `envoy.config.core.v3.Node` that are read. The others, among them a list of all extensions
/// of the proxy that makes up nearly all of the 60 kB, are passed over without being decoded.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NodeFields {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) cluster: String,
    #[prost(message, optional, tag = "4")]
    pub(super) locality: Option<Locality>,
    #[prost(string, repeated, tag = "10")]
    pub(super) client_features: Vec<String>,
}

impl NodeFields {
    /// The node that speaks on a connection with these names.
    pub(super) fn on(self, identities: Arc<[String]>) -> ReportingNode {
        let Locality { region, zone, sub_zone } = self.locality.unwrap_or_default();
        ReportingNode { id: self.id, cluster: self.cluster, region, zone, sub_zone, identities }
    }
}

/// The names of the client whose request it is.
pub(super) fn identities<T>(request: &tonic::Request<T>) -> Arc<[String]> {
    let connection = request.extensions().get::<Connection>();
    connection.map(|connection| connection.peer.identities.as_slice().into()).unwrap_or_default()
}
