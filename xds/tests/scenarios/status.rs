//! The client status discovery service: T14.

use std::collections::BTreeMap;

use axum::extract::Request;
use axum::middleware::{self, Next};
use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment, Secret};
use clairvoy_xds::{TransportOptions, VisibleGroups};
use envoy_types::pb::envoy::admin::v3::ClientResourceStatus;
use envoy_types::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use envoy_types::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use envoy_types::pb::envoy::service::status::v3::{ClientStatusRequest, ClientStatusResponse, ConfigStatus};
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{NodeMatcher, StringMatcher};
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Client, Delta, Sotw, Variant, connect, eventually, serve, server, settled, snapshot};

type Service = ClientStatusDiscoveryServiceClient<Channel>;

fn node(id: &str) -> ClientStatusRequest {
    let exact = StringMatcher { match_pattern: Some(MatchPattern::Exact(id.into())), ..Default::default() };
    ClientStatusRequest {
        node_matchers: vec![NodeMatcher { node_id: Some(exact), ..Default::default() }],
        ..Default::default()
    }
}

fn of_type(response: &ClientStatusResponse, type_url: &str) -> BTreeMap<String, GenericXdsConfig> {
    let [config] = &response.config[..] else { panic!("one client: {response:?}") };
    let configs = config.generic_xds_configs.iter().filter(|config| config.type_url == type_url);
    configs.map(|config| (config.name.clone(), config.clone())).collect()
}

fn state_of(config: &GenericXdsConfig) -> (ConfigStatus, ClientResourceStatus) {
    (config.config_status(), config.client_status())
}

async fn what_a_client_has<V: Variant>() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let address = serve(&server).await;
    let mut client: Client<V> = settled(&server, address, &["a", "b"]).await;
    let mut service = Service::new(connect(address).await);
    let endpoints = ClusterLoadAssignment.type_url();

    let status = service.fetch_client_status(node("proxy")).await.unwrap().into_inner();
    assert_eq!(status.config[0].node.as_ref().unwrap().id, "proxy");
    let newest = server.newest("all").unwrap();
    for (name, config) in of_type(&status, endpoints) {
        assert_eq!(state_of(&config), (ConfigStatus::Synced, ClientResourceStatus::Acked), "{name}");
        assert_eq!(config.version_info, newest.version(ClusterLoadAssignment, &name).unwrap().to_string());
        assert_eq!(config.xds_config.unwrap().type_url, endpoints);
    }

    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &["a"]));
    let response = client.expect(ClusterLoadAssignment).await;
    let status = service.fetch_client_status(node("proxy")).await.unwrap().into_inner();
    let sent = &of_type(&status, endpoints)["a"];
    assert_eq!(state_of(sent), (ConfigStatus::Stale, ClientResourceStatus::Requested));
    client.nack(&response, "no such thing").await;
    eventually("refused", || server.clients()[0].nacks() == 1).await;
    let status = service.fetch_client_status(node("proxy")).await.unwrap().into_inner();
    let configs = of_type(&status, endpoints);
    assert_eq!(state_of(&configs["a"]), (ConfigStatus::Error, ClientResourceStatus::Nacked));
    assert_eq!(configs["a"].error_state.as_ref().unwrap().details, "no such thing");
    assert_eq!(state_of(&configs["b"]), (ConfigStatus::Synced, ClientResourceStatus::Acked));
}

#[tokio::test]
async fn t14_sotw_the_status_service_tells_what_a_client_has() {
    what_a_client_has::<Sotw>().await;
}

#[tokio::test]
async fn t14_delta_the_status_service_tells_what_a_client_has() {
    what_a_client_has::<Delta>().await;
}

#[tokio::test]
async fn t14_the_status_service_tells_what_is_not_there() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &[]));
    let address = serve(&server).await;
    let first = Delta::request(Cluster, &["later"]);
    let mut client = Client::<Delta>::open(address, first).await.unwrap();
    client.expect_acked(Cluster).await;
    let mut service = Service::new(connect(address).await);
    let status = service.fetch_client_status(ClientStatusRequest::default()).await.unwrap().into_inner();
    let configs = of_type(&status, Cluster.type_url());
    assert_eq!(configs["later"].client_status(), ClientResourceStatus::DoesNotExist);
}

#[tokio::test]
async fn t14_the_status_service_finds_nodes_and_leaves_contents_out() {
    let server = server();
    server.publish("all", crate::services::everything(1));
    let address = serve(&server).await;
    let mut client = Client::<Delta>::open(address, Delta::request(Secret, &["key"])).await.unwrap();
    client.expect_acked(Secret).await;
    client.subscribe(Cluster, &[]).await;
    client.expect_acked(Cluster).await;
    let mut service = Service::new(connect(address).await);
    let none = service.fetch_client_status(node("other")).await.unwrap().into_inner();
    assert!(none.config.is_empty());
    let all = service.fetch_client_status(node("proxy")).await.unwrap().into_inner();
    assert!(of_type(&all, Secret.type_url())["key"].xds_config.is_none(), "a key stays here");
    assert!(of_type(&all, Cluster.type_url())["a"].xds_config.is_some());
    let brief = ClientStatusRequest { exclude_resource_contents: true, ..node("proxy") };
    let brief = service.fetch_client_status(brief).await.unwrap().into_inner();
    assert!(of_type(&brief, Cluster.type_url())["a"].xds_config.is_none());
    let pattern = StringMatcher { match_pattern: None, ..Default::default() };
    let unreadable = ClientStatusRequest {
        node_matchers: vec![NodeMatcher { node_id: Some(pattern), ..Default::default() }],
        ..Default::default()
    };
    let refused = service.fetch_client_status(unreadable).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn t14_a_status_stream_answers_each_request() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let address = serve(&server).await;
    let _client: Client<Sotw> = settled(&server, address, &["a"]).await;
    let mut service = Service::new(connect(address).await);
    let requests = tokio_stream::iter([node("proxy"), node("other"), node("proxy")]);
    let mut answers = service.stream_client_status(requests).await.unwrap().into_inner();
    for clients in [1, 0, 1] {
        assert_eq!(answers.message().await.unwrap().unwrap().config.len(), clients);
    }
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn t14_a_caller_that_may_see_some_groups_is_told_of_their_clients_only() {
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1)], &["a"]));
    let address = serve(&server).await;
    let _client: Client<Delta> = settled(&server, address, &["a"]).await;
    for (groups, clients) in [(&["other", "all"][..], 1), (&["other"], 0), (&[], 0)] {
        let visible = VisibleGroups::new(groups.iter().copied());
        let narrow = middleware::from_fn(move |mut request: Request, next: Next| {
            request.extensions_mut().insert(visible.clone());
            next.run(request)
        });
        let routes = server.routes().into_axum_router().layer(narrow);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = TransportOptions::default();
        tokio::spawn(clairvoy_xds::serve(listener, routes.into(), options, std::future::pending()));
        let mut service = Service::new(connect(address).await);
        let told = service.fetch_client_status(node("proxy")).await.unwrap().into_inner();
        assert_eq!(told.config.len(), clients, "{groups:?}");
        let mut answers =
            service.stream_client_status(tokio_stream::iter([node("proxy")])).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().config.len(), clients, "{groups:?}");
    }
}
