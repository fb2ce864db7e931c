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
    /// endpoints needs an empty assignment, else its clients wait for one.
    #[error(
        "cluster {cluster:?} has no assignment {assignment:?}: add one, an empty one if there are no endpoints"
    )]
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
    /// An assignment has no endpoints, and nobody said that it may have none.
    #[error(
        "assignment {assignment:?} has no endpoints: requests to its cluster would fail; if that is meant, \
         say that it may be empty"
    )]
    EmptyAssignment {
        /// The assignment.
        assignment: String,
    },
    /// A resource sends something to a cluster that does not exist: requests, logs, traces, questions.
    #[error(
        "{resource_type} {resource:?} names unknown cluster {cluster:?}: add it, or declare it external if \
         clients have it from elsewhere"
    )]
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
    /// A resource asks this server for a secret that does not exist.
    #[error(
        "{resource_type} {resource:?} names unknown secret {secret:?}: add it, or declare it external if \
         another server has it"
    )]
    UnknownSecret {
        /// The type of the resource with the reference.
        resource_type: ResourceType,
        /// The resource with the reference.
        resource: String,
        /// The secret that is missing.
        secret: String,
    },
    /// A resource asks this server for something of a type that it does not serve.
    #[error(
        "{resource_type} {resource:?} asks this server for {what}, which it does not serve, so that clients \
         would wait for ever: write it into the resource, or name another source"
    )]
    NotServed {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// What it asks for.
        what: String,
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
    /// An endpoint or a locality has no weight, while others beside it have one.
    #[error(
        "{resource_type} {resource:?}: {of} has no weight, while others beside it have one: give a weight to \
         all or to none"
    )]
    MissingWeight {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The endpoint or locality without a weight.
        of: String,
    },
    /// A key of a runtime layer replaces the weight of a cluster by something that is no weight.
    #[error(
        "runtime layer {layer:?}: {key:?} is {value}, but the weight of a cluster is a whole number from 0 to \
         4294967295"
    )]
    RuntimeWeight {
        /// The runtime layer.
        layer: String,
        /// The key: the prefix of the route, a dot, and the cluster.
        key: String,
        /// The value, as text.
        value: String,
    },
    /// An assignment has the same address twice. Proxies keep the first one without a word.
    #[error("assignment {assignment:?}: endpoint {endpoint} is in {first}, and again in {again}")]
    DuplicateEndpoint {
        /// The assignment.
        assignment: String,
        /// The address.
        endpoint: String,
        /// The locality that has it.
        first: String,
        /// The locality that has it, too.
        again: String,
    },
    /// The priorities of an assignment are not 0, 1, 2 and so on. gRPC clients refuse this.
    #[error("assignment {assignment:?}: priority {used} is used, but {missing} is not: leave no gaps")]
    PriorityGap {
        /// The assignment.
        assignment: String,
        /// The first priority that is left out.
        missing: u32,
        /// The next one that is used.
        used: u32,
    },
    /// A number is outside of what makes sense for it.
    #[error("{resource_type} {resource:?}: {field} is {value}, but has to be {allowed}")]
    OutOfRange {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// A retry policy has a condition that proxies do not know, and ignore.
    #[error("{resource_type} {resource:?}: retry_on has the unknown condition {condition:?}")]
    UnknownRetryCondition {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The condition.
        condition: String,
    },
    /// Proxies ignore a field where it is.
    #[error("{resource_type} {resource:?}: {field} is ignored: it belongs in {instead}")]
    IgnoredField {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        resource: String,
        /// The field, and where it is.
        field: String,
        /// Where it is not ignored.
        instead: &'static str,
    },
    /// A resource was to be taken over from a snapshot that does not have it.
    #[error("{resource_type} {name:?} cannot be taken over: the snapshot before has none")]
    NothingToKeep {
        /// The type of the resource.
        resource_type: ResourceType,
        /// The resource.
        name: String,
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

/// Faults that the text of an [`InvalidSnapshot`] lists. All are in [`InvalidSnapshot::faults`].
const SHOWN: usize = 50;

impl fmt::Display for InvalidSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "invalid snapshot, {count} {}: ", if count == 1 { "fault" } else { "faults" })?;
        for (i, fault) in self.faults.iter().take(SHOWN).enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{fault}")?;
        }
        match count.checked_sub(SHOWN) {
            Some(more @ 1..) => write!(f, "; and {more} more"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for InvalidSnapshot {}
