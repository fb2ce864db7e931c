//! Responses are read without decoding them.

use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
use envoy_types::util::pack_any;
use prost::Message as _;

use crate::resources;
use crate::wire::{Fields, Malformed, Messages, Response, Value, any_of_resource, assignment};

#[test]
fn the_generation_is_found_in_both_variants() {
    let any = pack_any(resources::assignment(7, 20, 300));
    let delta = DeltaDiscoveryResponse {
        resources: vec![Resource {
            name: "cluster-0007".into(),
            version: "v".into(),
            resource: Some(any.clone()),
            ..Default::default()
        }],
        type_url: any.type_url.clone(),
        nonce: "n1".into(),
        removed_resources: vec!["gone".into()],
        ..Default::default()
    };
    let sotw = DiscoveryResponse {
        version_info: "v9".into(),
        resources: vec![any.clone()],
        type_url: any.type_url.clone(),
        nonce: "n2".into(),
        ..Default::default()
    };
    let delta = delta.encode_to_vec();
    let read = Response::read(&delta).unwrap();
    assert_eq!((read.nonce, read.type_url), (&b"n1"[..], any.type_url.as_bytes()));
    let found: Vec<_> = read.resources().map(|r| any_of_resource(r.unwrap()).unwrap()).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(assignment(found[0]).unwrap(), (&b"cluster-0007"[..], 300));

    let sotw = sotw.encode_to_vec();
    let read = Response::read(&sotw).unwrap();
    assert_eq!((read.nonce, read.version), (&b"n2"[..], &b"v9"[..]));
    let found: Vec<_> = read.resources().map(Result::unwrap).collect();
    assert_eq!(assignment(found[0]).unwrap(), (&b"cluster-0007"[..], 300));
}

#[test]
fn messages_are_put_together_from_any_pieces() {
    let messages: [&[u8]; 4] = [b"first", b"", b"a longer third one", b"x"];
    let mut bytes = Vec::new();
    for message in messages {
        bytes.push(0);
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
    }
    for size in 1..=bytes.len() {
        let mut reader = Messages::default();
        let mut seen = Vec::new();
        for chunk in bytes.chunks(size) {
            reader
                .push(chunk, |message| {
                    seen.push(message.to_vec());
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(seen, messages, "in pieces of {size}");
    }
}

#[test]
fn faults_are_told() {
    let mut reader = Messages::default();
    assert_eq!(reader.push(&[1, 0, 0, 0, 1, 9], |_| Ok(())), Err(Malformed("compressed")));
    assert_eq!(Response::read(&[0x0a, 9, 1]), Err(Malformed("a field is cut off")));
    assert_eq!(Response::read(&[]), Err(Malformed("no nonce")));
    assert!(Fields(&[0x80; 20]).next().unwrap().is_err());
}

#[test]
fn a_number_may_have_a_fixed_width() {
    let mut fields = Fields(&[0x08, 0x87, 0x80, 0x80, 0x80, 0x00]);
    assert_eq!(fields.next(), Some(Ok((1, Value::Varint(7)))));
    assert_eq!(fields.next(), None);
}
