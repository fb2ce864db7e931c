//! What can be wrong with a snapshot.

use std::fmt;

use crate::resource_type::ResourceType;

/// One mistake in the resources of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A resource has no name.
    #[error("{resource_type}: a resource has an empty name")]
    EmptyName {
        /// The type of the resource.
        resource_type: ResourceType,
    },
    /// Two resources of a type have the same name.
    #[error("{resource_type}: duplicate name {name:?}")]
    DuplicateName {
        /// The type of the resources.
        resource_type: ResourceType,
        /// The name they share.
        name: String,
    },
    /// A cluster takes its endpoints from this server, which has none for it. A cluster without
    /// endpoints needs an empty assignment.
    #[error("cluster {cluster:?} has no assignment {assignment:?}")]
    MissingAssignment {
        /// The cluster.
        cluster: String,
        /// The name under which it asks for endpoints.
        assignment: String,
    },
    /// No cluster asks for an assignment.
    #[error("assignment {assignment:?} belongs to no cluster")]
    UnusedAssignment {
        /// The assignment.
        assignment: String,
    },
    /// A resource sends requests to a cluster that does not exist.
    #[error("{resource_type} {resource:?} names unknown cluster {cluster:?}")]
    UnknownCluster {
        /// The type of the resource with the reference.
        resource_type: ResourceType,
        /// The resource with the reference.
        resource: String,
        /// The cluster that is missing.
        cluster: String,
    },
    /// A listener asks for a route configuration that does not exist.
    #[error("listener {listener:?} names unknown route configuration {route_configuration:?}")]
    UnknownRouteConfiguration {
        /// The listener.
        listener: String,
        /// The route configuration that is missing.
        route_configuration: String,
    },
    /// A weight is zero, which proxies refuse. An endpoint without traffic is left out or draining.
    #[error("{resource_type} {resource:?}: the weight of {of} is 0")]
    ZeroWeight {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The endpoint, locality or cluster with the weight.
        of: String,
    },
    /// The weights of one list add up to more than 4,294,967,295.
    #[error("{resource_type} {resource:?}: the weights of {of} add up to {sum}, more than 4294967295")]
    WeightSum {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The list whose weights are too large.
        of: String,
        /// The sum of its weights.
        sum: u64,
    },
    /// A packed message of a known type cannot be read.
    #[error("{resource_type} {resource:?}: cannot decode {type_url}: {reason}")]
    Undecodable {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The type of the packed message.
        type_url: String,
        /// What the decoder says.
        reason: String,
    },
}

/// A snapshot was refused: every fault that it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSnapshot {
    /// The faults, sorted, at least one.
    pub faults: Vec<Fault>,
}

impl fmt::Display for InvalidSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid snapshot, {} faults: ", self.faults.len())?;
        for (i, fault) in self.faults.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidSnapshot {}
