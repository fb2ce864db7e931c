//! The resource types that the server serves, in the order in which they are sent.

use std::fmt;
use std::ops::{Index, IndexMut};

use prometheus_client::encoding::EncodeLabelValue;
use serde::Serialize;

/// A type of resource. The order of the variants is the order of sending: what is referred to goes
/// before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum ResourceType {
    /// `envoy.service.runtime.v3.Runtime`, served by RTDS.
    Runtime,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`, served by SDS.
    Secret,
    /// `envoy.config.cluster.v3.Cluster`, served by CDS.
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`, served by EDS.
    ClusterLoadAssignment,
    /// `envoy.config.listener.v3.Listener`, served by LDS.
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration`, served by RDS.
    RouteConfiguration,
}

impl ResourceType {
    /// Every type, in the order of sending.
    pub const ALL: [Self; 6] = [
        Self::Runtime,
        Self::Secret,
        Self::Cluster,
        Self::ClusterLoadAssignment,
        Self::Listener,
        Self::RouteConfiguration,
    ];

    /// The type URL of requests and responses.
    pub const fn type_url(self) -> &'static str {
        match self {
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::RouteConfiguration => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        }
    }

    /// The type with this URL; `None` for a type that is not served.
    pub fn from_type_url(type_url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|resource_type| resource_type.type_url() == type_url)
    }

    /// The name of the discovery service of the type: `RTDS`, `SDS`, `CDS`, `EDS`, `LDS` or `RDS`.
    pub const fn service(self) -> &'static str {
        match self {
            Self::Runtime => "RTDS",
            Self::Secret => "SDS",
            Self::Cluster => "CDS",
            Self::ClusterLoadAssignment => "EDS",
            Self::Listener => "LDS",
            Self::RouteConfiguration => "RDS",
        }
    }

    /// True where a first request without names asks for everything.
    pub const fn empty_means_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.service())
    }
}

impl EncodeLabelValue for ResourceType {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        self.service().encode(encoder)
    }
}

/// One value for each type.
#[derive(Clone, Debug, Default)]
pub(crate) struct PerType<T>([T; ResourceType::ALL.len()]);

impl<T> PerType<T> {
    pub(crate) fn from_fn(mut make: impl FnMut(ResourceType) -> T) -> Self {
        Self(ResourceType::ALL.map(&mut make))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ResourceType, &T)> {
        ResourceType::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<ResourceType> for PerType<T> {
    type Output = T;

    fn index(&self, resource_type: ResourceType) -> &T {
        &self.0[resource_type as usize]
    }
}

impl<T> IndexMut<ResourceType> for PerType<T> {
    fn index_mut(&mut self, resource_type: ResourceType) -> &mut T {
        &mut self.0[resource_type as usize]
    }
}
