//! The two variants of the protocol, as far as a client differs between them.

use std::fmt::Debug;

use clairvoy_xds::ResourceType;
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc;
use prost::{Message, Name};

/// A variant of the protocol.
pub(crate) trait Variant: Debug + 'static {
    type Request: Message + Default + Clone + Debug + 'static;
    type Response: Message + Default + Clone + Debug + 'static;

    /// The path of the aggregated service, or of that of one type.
    fn path(only: Option<ResourceType>) -> &'static str;
    /// Asks for these names: in SotW for no others.
    fn request(resource_type: ResourceType, names: &[&str]) -> Self::Request;
    fn with_type_url(request: Self::Request, type_url: &str) -> Self::Request;
    fn with_node(request: Self::Request, node: Option<Node>) -> Self::Request;
    fn with_nonce(request: Self::Request, nonce: &str, version: &str) -> Self::Request;
    /// Accepts a response, or refuses it. `names` are those that a SotW client wants.
    fn answer(response: &Self::Response, names: &[String], error: Option<rpc::Status>) -> Self::Request;
    fn names_of(request: &Self::Request) -> &[String];
    fn type_url_of(request: &Self::Request) -> &str;
    fn type_url(response: &Self::Response) -> &str;
    fn nonce(response: &Self::Response) -> &str;
    /// The version of the whole response; empty in delta.
    fn version(response: &Self::Response) -> &str;
    /// The names of the resources.
    fn names(response: &Self::Response) -> Vec<String>;
    /// The packed resources.
    fn contents(response: &Self::Response) -> Vec<Any>;
}

#[derive(Debug)]
pub(crate) enum Delta {}

#[derive(Debug)]
pub(crate) enum Sotw {}

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    fn path(only: Option<ResourceType>) -> &'static str {
        match only {
            None => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            Some(ResourceType::Runtime) => "/envoy.service.runtime.v3.RuntimeDiscoveryService/DeltaRuntime",
            Some(ResourceType::Secret) => "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
            Some(ResourceType::Cluster) => "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters",
            Some(ResourceType::ClusterLoadAssignment) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
            }
            Some(ResourceType::Listener) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
            }
            Some(ResourceType::RouteConfiguration) => {
                "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes"
            }
        }
    }

    fn request(resource_type: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
        request(resource_type, names)
    }

    fn with_type_url(request: DeltaDiscoveryRequest, type_url: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { type_url: type_url.into(), ..request }
    }

    fn with_node(request: DeltaDiscoveryRequest, node: Option<Node>) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { node, ..request }
    }

    fn with_nonce(request: DeltaDiscoveryRequest, nonce: &str, _: &str) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest { response_nonce: nonce.into(), ..request }
    }

    fn answer(
        response: &DeltaDiscoveryResponse,
        _: &[String],
        error: Option<rpc::Status>,
    ) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error,
            ..Default::default()
        }
    }

    fn names_of(request: &DeltaDiscoveryRequest) -> &[String] {
        &request.resource_names_subscribe
    }

    fn type_url_of(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn type_url(response: &DeltaDiscoveryResponse) -> &str {
        &response.type_url
    }

    fn nonce(response: &DeltaDiscoveryResponse) -> &str {
        &response.nonce
    }

    fn version(_: &DeltaDiscoveryResponse) -> &str {
        ""
    }

    fn names(response: &DeltaDiscoveryResponse) -> Vec<String> {
        response.resources.iter().map(|resource| resource.name.clone()).collect()
    }

    fn contents(response: &DeltaDiscoveryResponse) -> Vec<Any> {
        response.resources.iter().filter_map(|resource| resource.resource.clone()).collect()
    }
}

impl Variant for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    fn path(only: Option<ResourceType>) -> &'static str {
        match only {
            None => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
            Some(ResourceType::Runtime) => "/envoy.service.runtime.v3.RuntimeDiscoveryService/StreamRuntime",
            Some(ResourceType::Secret) => "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets",
            Some(ResourceType::Cluster) => "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters",
            Some(ResourceType::ClusterLoadAssignment) => {
                "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
            }
            Some(ResourceType::Listener) => {
                "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
            }
            Some(ResourceType::RouteConfiguration) => {
                "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes"
            }
        }
    }

    fn request(resource_type: ResourceType, names: &[&str]) -> DiscoveryRequest {
        sotw_request(resource_type, names)
    }

    fn with_type_url(request: DiscoveryRequest, type_url: &str) -> DiscoveryRequest {
        DiscoveryRequest { type_url: type_url.into(), ..request }
    }

    fn with_node(request: DiscoveryRequest, node: Option<Node>) -> DiscoveryRequest {
        DiscoveryRequest { node, ..request }
    }

    fn with_nonce(request: DiscoveryRequest, nonce: &str, version: &str) -> DiscoveryRequest {
        DiscoveryRequest { response_nonce: nonce.into(), version_info: version.into(), ..request }
    }

    fn answer(
        response: &DiscoveryResponse,
        names: &[String],
        error: Option<rpc::Status>,
    ) -> DiscoveryRequest {
        // A client that refuses names the version that it keeps; here none.
        let version = if error.is_none() { response.version_info.clone() } else { String::new() };
        DiscoveryRequest {
            type_url: response.type_url.clone(),
            version_info: version,
            response_nonce: response.nonce.clone(),
            resource_names: names.to_vec(),
            error_detail: error,
            ..Default::default()
        }
    }

    fn names_of(request: &DiscoveryRequest) -> &[String] {
        &request.resource_names
    }

    fn type_url_of(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    fn type_url(response: &DiscoveryResponse) -> &str {
        &response.type_url
    }

    fn nonce(response: &DiscoveryResponse) -> &str {
        &response.nonce
    }

    fn version(response: &DiscoveryResponse) -> &str {
        &response.version_info
    }

    fn names(response: &DiscoveryResponse) -> Vec<String> {
        sotw_names(response)
    }

    fn contents(response: &DiscoveryResponse) -> Vec<Any> {
        response.resources.clone()
    }
}

pub(crate) fn request(resource_type: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: resource_type.type_url().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn sotw_request(resource_type: ResourceType, names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: resource_type.type_url().into(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

pub(crate) fn refusal(message: &str) -> rpc::Status {
    rpc::Status { code: 13, message: message.into(), ..Default::default() }
}

pub(crate) fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

pub(crate) fn sotw_names(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(name_of).collect()
}

fn name_of(any: &Any) -> String {
    let value = any.value.as_slice();
    let is = |type_url: String| any.type_url == type_url;
    if is(Cluster::type_url()) {
        Cluster::decode(value).unwrap().name
    } else if is(ClusterLoadAssignment::type_url()) {
        ClusterLoadAssignment::decode(value).unwrap().cluster_name
    } else if is(Listener::type_url()) {
        Listener::decode(value).unwrap().name
    } else if is(RouteConfiguration::type_url()) {
        RouteConfiguration::decode(value).unwrap().name
    } else if is(Secret::type_url()) {
        Secret::decode(value).unwrap().name
    } else if is(Runtime::type_url()) {
        Runtime::decode(value).unwrap().name
    } else if is(Resource::type_url()) {
        Resource::decode(value).unwrap().name
    } else {
        panic!("unknown type {}", any.type_url)
    }
}
