//! The services of single types beside the aggregated one: T1.

use clairvoy_xds::{ResourceType, Snapshot};
use envoy_types::pb::envoy::config::core::v3::DataSource;
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{GenericSecret, Secret};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use tonic::Code;

use crate::fixtures;
use crate::harness::{Client, Delta, RawClient, Sotw, Variant, connect, serve, server};

/// One resource of each type. Another generation makes other versions.
pub(crate) fn everything(generation: u16) -> Snapshot {
    let mut builder = clairvoy_xds::SnapshotBuilder::new();
    builder.cluster(fixtures::cluster("a", generation.into()));
    builder.assignment(fixtures::assignment("a", generation));
    builder.listener(fixtures::listener("front", generation, "routes"));
    let mut routes = fixtures::routes("routes", ["a"]);
    routes.virtual_hosts[0].domains = vec![format!("host-{generation}")];
    builder.route_configuration(routes);
    builder.secret(secret("key", &generation.to_string()));
    builder.runtime(runtime("layer", generation.into()));
    builder.build().unwrap()
}

pub(crate) fn secret(name: &str, content: &str) -> Secret {
    let specifier = Some(Specifier::InlineString(content.into()));
    let secret = Some(DataSource { specifier, ..Default::default() });
    Secret {
        name: name.into(),
        r#type: Some(Type::GenericSecret(GenericSecret { secret, ..Default::default() })),
    }
}

pub(crate) fn runtime(name: &str, weight: u32) -> Runtime {
    let value = Value { kind: Some(Kind::NumberValue(weight.into())) };
    Runtime { name: name.into(), layer: Some(Struct { fields: [("weight".into(), value)].into() }) }
}

fn name_of(t: ResourceType) -> &'static str {
    match t {
        ResourceType::Runtime => "layer",
        ResourceType::Secret => "key",
        ResourceType::Cluster | ResourceType::ClusterLoadAssignment => "a",
        ResourceType::Listener => "front",
        ResourceType::RouteConfiguration => "routes",
    }
}

/// The service of each type serves it, without a type URL in the request, and nothing else.
async fn each_service_serves_its_type<V: Variant>() {
    let server = server();
    server.publish("all", everything(1));
    let address = serve(&server).await;
    for t in ResourceType::ALL {
        for type_url in ["", t.type_url()] {
            let first = V::with_type_url(V::request(t, &[name_of(t)]), type_url);
            let mut client = Client::<V>::open_service(address, Some(t), first).await.unwrap();
            let response = client.expect_acked(t).await;
            assert_eq!(V::names(&response), [name_of(t)]);
            assert!(V::contents(&response).iter().all(|any| any.type_url == t.type_url()));
            client.expect_nothing().await;
        }
        let other = ResourceType::ALL.into_iter().find(|other| *other != t).unwrap();
        let mut client = Client::<V>::open_service(address, Some(t), V::request(other, &[])).await.unwrap();
        assert_eq!(client.next().await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn t1_sotw_each_service_serves_its_type() {
    each_service_serves_its_type::<Sotw>().await;
}

#[tokio::test]
async fn t1_delta_each_service_serves_its_type() {
    each_service_serves_its_type::<Delta>().await;
}

/// All services of a server, and the aggregated one, see a change.
async fn changes_reach_each_service<V: Variant>() {
    let server = server();
    server.publish("all", everything(1));
    let address = serve(&server).await;
    let mut clients = Vec::new();
    for t in ResourceType::ALL {
        for only in [None, Some(t)] {
            let first = V::request(t, &[name_of(t)]);
            let mut client = Client::<V>::open_service(address, only, first).await.unwrap();
            client.expect_acked(t).await;
            clients.push((t, client));
        }
    }
    server.publish("all", everything(2));
    for (t, client) in &mut clients {
        assert_eq!(V::names(&client.expect_acked(*t).await), [name_of(*t)]);
    }
    // The streams are those of one node, which waits for the endpoints of its changed clusters and the routes
    // of its changed listeners: these may come once more.
    let may_repeat = [ResourceType::ClusterLoadAssignment, ResourceType::RouteConfiguration];
    for (_, client) in clients.iter_mut().filter(|(t, _)| !may_repeat.contains(t)) {
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn t1_sotw_changes_reach_each_service() {
    changes_reach_each_service::<Sotw>().await;
}

#[tokio::test]
async fn t1_delta_changes_reach_each_service() {
    changes_reach_each_service::<Delta>().await;
}

/// Without a type an aggregated stream ends, and no other.
async fn a_request_without_a_type_ends_its_stream<V: Variant>() {
    let server = server();
    server.publish("all", everything(1));
    let address = serve(&server).await;
    let channel = connect(address).await;
    let first = V::with_node(V::request(ResourceType::Cluster, &[]), Some(Default::default()));
    let mut other = Client::<V>::open_on(channel.clone(), None, first).await.unwrap();
    other.expect_acked(ResourceType::Cluster).await;
    let mut client = Client::<V>::open_on(channel, None, V::Request::default()).await.unwrap();
    assert_eq!(client.next().await.unwrap_err().code(), Code::InvalidArgument);
    server.publish("all", everything(2));
    other.expect_acked(ResourceType::Cluster).await;
}

#[tokio::test]
async fn t1_sotw_a_request_without_a_type_ends_its_stream_only() {
    a_request_without_a_type_ends_its_stream::<Sotw>().await;
}

#[tokio::test]
async fn t1_delta_a_request_without_a_type_ends_its_stream_only() {
    a_request_without_a_type_ends_its_stream::<Delta>().await;
}

#[tokio::test]
async fn t1_a_method_that_is_not_there_is_unimplemented() {
    let server = server();
    let channel = connect(serve(&server).await).await;
    for path in [
        "/envoy.service.discovery.v3.AggregatedDiscoveryService/FetchAggregatedResources",
        "/envoy.service.discovery.v9.Nothing/StreamNothing",
    ] {
        let outcome = RawClient::open(channel.clone(), path).await;
        assert_eq!(outcome.err().unwrap().code(), Code::Unimplemented, "{path}");
    }
}
