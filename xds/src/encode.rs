//! The wire form: of resources, made once for each content, and of responses, made of those.

mod canonical;

use std::ops::Range;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{self, WireType};
use prost::{Message, Name};

use crate::resource_type::ResourceType;
use crate::version::Version;

// `DeltaDiscoveryResponse` and, with the same numbers but for the first and the last, `DiscoveryResponse`.
const RESPONSE_VERSION_INFO: u32 = 1;
const RESPONSE_RESOURCES: u32 = 2;
const RESPONSE_TYPE_URL: u32 = 4;
const RESPONSE_NONCE: u32 = 5;
const RESPONSE_REMOVED: u32 = 6;
const RESOURCE_VERSION: u32 = 1;
const RESOURCE_ANY: u32 = 2;
const RESOURCE_NAME: u32 = 3;
const RESOURCE_TTL: u32 = 6;
const ANY_TYPE_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

/// The type of a resource that is wrapped, in a SotW response, to carry a TTL.
const WRAPPER_TYPE_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// Flag and length before each gRPC message.
const PREFIX: usize = 5;

/// Up to this length a message is copied behind its nonce, into one HTTP/2 frame; a longer one is shared.
const MAX_COPIED: usize = 8 << 10;

/// A resource as it stands in responses, tag and length included.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    delta: Bytes,
    /// Where in `delta` the resource stands as in a SotW response: both fields have the same number.
    any: Range<usize>,
}

impl Entry {
    /// Encodes a message, and gives its version.
    ///
    /// Map entries are written in the order of their keys, within packed `Any` messages too, as far as the
    /// message types are those of the Envoy API. An `Any` of another type keeps its bytes: whoever packs a
    /// map with more than one entry into one has to write it in a stable order.
    pub(crate) fn new<M: Name>(name: &str, message: &M) -> (Version, Self) {
        let mut value = message.encode_to_vec();
        canonical::sort_map_entries(&M::full_name(), &mut value);
        let mut any = Vec::with_capacity(value.len() + 96);
        put_bytes(ANY_TYPE_URL, M::type_url().as_bytes(), &mut any);
        put_bytes(ANY_VALUE, &value, &mut any);
        let version = Version::of(&any);

        let mut resource = Vec::with_capacity(any.len() + name.len() + 48);
        put_bytes(RESOURCE_NAME, name.as_bytes(), &mut resource);
        put_bytes(RESOURCE_VERSION, version.to_string().as_bytes(), &mut resource);
        put_bytes(RESOURCE_ANY, &any, &mut resource);

        let mut entry = BytesMut::with_capacity(resource.len() + 8);
        put_bytes(RESPONSE_RESOURCES, &resource, &mut entry);
        let any_field = 1 + encoding::encoded_len_varint(any.len() as u64) + any.len();
        let any = entry.len() - any_field..entry.len();
        (version, Self { delta: entry.freeze(), any })
    }

    pub(crate) fn delta(&self) -> &[u8] {
        &self.delta
    }

    pub(crate) fn sotw(&self) -> &[u8] {
        &self.delta[self.any.clone()]
    }

    /// The packed message.
    pub(crate) fn any(&self) -> &[u8] {
        let mut field = self.sotw();
        // Written by `new`, so both can be read.
        let _ = encoding::decode_key(&mut field);
        let _ = encoding::decode_varint(&mut field);
        field
    }

    /// The resource with a TTL in a delta response; without its content, a heartbeat.
    pub(crate) fn delta_with_ttl(
        &self,
        name: &str,
        version: Version,
        ttl: Duration,
        content: bool,
    ) -> Vec<u8> {
        let mut entry = Vec::new();
        put_bytes(RESPONSE_RESOURCES, &self.with_ttl(name, version, ttl, content), &mut entry);
        entry
    }

    /// The same in a SotW response.
    pub(crate) fn sotw_with_ttl(
        &self,
        name: &str,
        version: Version,
        ttl: Duration,
        content: bool,
    ) -> Vec<u8> {
        let mut any = Vec::new();
        put_bytes(ANY_TYPE_URL, WRAPPER_TYPE_URL.as_bytes(), &mut any);
        put_bytes(ANY_VALUE, &self.with_ttl(name, version, ttl, content), &mut any);
        let mut entry = Vec::new();
        put_bytes(RESPONSE_RESOURCES, &any, &mut entry);
        entry
    }

    fn with_ttl(&self, name: &str, version: Version, ttl: Duration, content: bool) -> Vec<u8> {
        let ttl = envoy_types::pb::google::protobuf::Duration {
            seconds: ttl.as_secs() as i64,
            nanos: ttl.subsec_nanos() as i32,
        };
        let mut resource = Vec::with_capacity(self.delta.len() + 16);
        put_bytes(RESOURCE_NAME, name.as_bytes(), &mut resource);
        put_bytes(RESOURCE_VERSION, version.to_string().as_bytes(), &mut resource);
        if content {
            resource.extend_from_slice(self.sotw());
        }
        put_bytes(RESOURCE_TTL, &ttl.encode_to_vec(), &mut resource);
        resource
    }
}

/// A delta response without its nonce.
pub(crate) fn delta_body<'a>(
    type_url: &str,
    entries: impl Iterator<Item = &'a [u8]> + Clone,
    removed: impl Iterator<Item = &'a str>,
) -> Bytes {
    let size: usize = entries.clone().map(<[u8]>::len).sum();
    let mut body = BytesMut::with_capacity(size + type_url.len() + 8);
    entries.for_each(|entry| body.put_slice(entry));
    put_bytes(RESPONSE_TYPE_URL, type_url.as_bytes(), &mut body);
    removed.for_each(|name| put_bytes(RESPONSE_REMOVED, name.as_bytes(), &mut body));
    body.freeze()
}

/// A SotW response without its nonce.
pub(crate) fn sotw_body<'a>(
    type_url: &str,
    version: Version,
    entries: impl Iterator<Item = &'a [u8]> + Clone,
) -> Bytes {
    let size: usize = entries.clone().map(<[u8]>::len).sum();
    let mut body = BytesMut::with_capacity(size + type_url.len() + 48);
    put_bytes(RESPONSE_VERSION_INFO, version.to_string().as_bytes(), &mut body);
    entries.for_each(|entry| body.put_slice(entry));
    put_bytes(RESPONSE_TYPE_URL, type_url.as_bytes(), &mut body);
    body.freeze()
}

/// A gRPC message: a head of its own, and a body that other streams may share.
#[derive(Clone, Debug)]
pub(crate) struct GrpcMessage {
    head: Bytes,
    body: Bytes,
}

impl GrpcMessage {
    pub(crate) fn new(nonce: &str, body: &Bytes) -> Self {
        let nonce_length = 2 + nonce.len();
        let copied = if body.len() <= MAX_COPIED { body.len() } else { 0 };
        let mut head = BytesMut::with_capacity(PREFIX + nonce_length + copied);
        head.put_u8(0);
        head.put_u32((nonce_length + body.len()) as u32);
        // Fields may come in any order.
        put_bytes(RESPONSE_NONCE, nonce.as_bytes(), &mut head);
        head.put_slice(&body[..copied]);
        Self { head: head.freeze(), body: if copied == 0 { body.clone() } else { Bytes::new() } }
    }

    /// The parts, in the order of sending; the second may be empty.
    pub(crate) fn into_parts(self) -> (Bytes, Bytes) {
        (self.head, self.body)
    }

    /// Bytes of the message, without the prefix.
    pub(crate) fn len(&self) -> usize {
        self.head.len() - PREFIX + self.body.len()
    }
}

/// The hash of the names and versions of a set of resources.
pub(crate) fn fingerprint<'a>(
    resource_type: ResourceType,
    resources: impl Iterator<Item = (&'a str, Version)>,
) -> Version {
    let mut content = resource_type.type_url().as_bytes().to_vec();
    for (name, version) in resources {
        put_name(name, &mut content);
        content.extend_from_slice(&version.to_bytes());
    }
    Version::of(&content)
}

/// The hash of names in their order.
pub(crate) fn hash_of_names<'a>(names: impl Iterator<Item = &'a str>) -> Version {
    let mut content = Vec::new();
    names.for_each(|name| put_name(name, &mut content));
    Version::of(&content)
}

fn put_name(name: &str, into: &mut Vec<u8>) {
    into.extend_from_slice(&(name.len() as u64).to_be_bytes());
    into.extend_from_slice(name.as_bytes());
}

fn put_bytes(field: u32, bytes: &[u8], into: &mut impl BufMut) {
    encoding::encode_key(field, WireType::LengthDelimited, into);
    encoding::encode_varint(bytes.len() as u64, into);
    into.put_slice(bytes);
}
