//! The requests are what a proxy sends.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message as _;

use crate::protocol::Variant;
use crate::requests::{Requests, Subject};

fn decoded<M: prost::Message + Default>(framed: &[u8]) -> M {
    let (prefix, message) = framed.split_at(5);
    assert_eq!(prefix[0], 0);
    assert_eq!(prefix[1..], (message.len() as u32).to_be_bytes());
    M::decode(message).unwrap()
}

#[test]
fn delta_requests_are_what_a_proxy_sends() {
    let requests = Requests::new(Variant::Delta, 3, 50_000);
    let first: DeltaDiscoveryRequest = decoded(&requests.first(12));
    let node = first.node.unwrap();
    assert_eq!(node.id, "sidecar~10.1.0.1~app-00012.default");
    assert_eq!(node.user_agent_name, "envoy");
    assert!(node.encoded_len() > 50_000 && node.encoded_len() < 51_000);
    assert_eq!(first.type_url, Subject::Clusters.type_url());
    assert_eq!((first.resource_names_subscribe.len(), first.response_nonce.as_str()), (0, ""));

    let subscribe: DeltaDiscoveryRequest = decoded(&requests.subscribe());
    assert_eq!(subscribe.type_url, Subject::Endpoints.type_url());
    assert_eq!(subscribe.resource_names_subscribe, ["cluster-0000", "cluster-0001", "cluster-0002"]);

    let ack: DeltaDiscoveryRequest = decoded(&requests.ack(Subject::Endpoints, b"", b"n7"));
    let expected = DeltaDiscoveryRequest {
        type_url: Subject::Endpoints.type_url().into(),
        response_nonce: "n7".into(),
        ..Default::default()
    };
    assert_eq!(ack, expected);
}

#[test]
fn state_of_the_world_requests_repeat_names_and_version() {
    let requests = Requests::new(Variant::Sotw, 2, 0);
    let first: DiscoveryRequest = decoded(&requests.first(0));
    assert_eq!(first.node.unwrap().cluster, "app.default");
    assert_eq!(first.type_url, Subject::Clusters.type_url());
    let ack: DiscoveryRequest = decoded(&requests.ack(Subject::Endpoints, b"v3", b"n7"));
    let expected = DiscoveryRequest {
        version_info: "v3".into(),
        resource_names: vec!["cluster-0000".into(), "cluster-0001".into()],
        type_url: Subject::Endpoints.type_url().into(),
        response_nonce: "n7".into(),
        ..Default::default()
    };
    assert_eq!(ack, expected);
    let ack: DiscoveryRequest = decoded(&requests.ack(Subject::Clusters, b"v3", b"n8"));
    assert!(ack.resource_names.is_empty());
}
