//! The wire form of resources, made once for each snapshot.

mod canonical;

use bytes::{Bytes, BytesMut};
use prost::Name;
use prost::encoding::{self, WireType};

use crate::resource_type::ResourceType;
use crate::version::Version;

const RESPONSE_RESOURCES: u32 = 2;
const RESPONSE_TYPE_URL: u32 = 4;
const RESPONSE_NONCE: u32 = 5;
const RESPONSE_REMOVED: u32 = 6;
const RESOURCE_VERSION: u32 = 1;
const RESOURCE_ANY: u32 = 2;
const RESOURCE_NAME: u32 = 3;
const ANY_TYPE_URL: u32 = 1;
const ANY_VALUE: u32 = 2;

/// Encodes a resource into one entry of the `resources` field of a delta response, tag and length
/// included, and gives its version.
///
/// Map entries are written in the order of their keys, within packed `Any` messages too, as far as the
/// message types are those of the Envoy API. An `Any` of another type keeps its bytes: whoever packs a
/// map with more than one entry into one has to write it in a stable order.
pub(crate) fn resource_entry<M: Name>(name: &str, message: &M) -> (Version, Bytes) {
    let mut value = message.encode_to_vec();
    canonical::sort_map_entries(&M::full_name(), &mut value);

    let mut any = Vec::with_capacity(value.len() + 96);
    put_bytes(ANY_TYPE_URL, M::type_url().as_bytes(), &mut any);
    put_bytes(ANY_VALUE, &value, &mut any);
    let version = Version::of(&any);

    let mut resource = Vec::with_capacity(any.len() + name.len() + 48);
    put_bytes(RESOURCE_VERSION, version.to_string().as_bytes(), &mut resource);
    put_bytes(RESOURCE_ANY, &any, &mut resource);
    put_bytes(RESOURCE_NAME, name.as_bytes(), &mut resource);

    let mut entry = BytesMut::with_capacity(resource.len() + 8);
    put_bytes(RESPONSE_RESOURCES, &resource, &mut entry);
    (version, entry.freeze())
}

/// A delta response whose resources are shared with every other response that holds them.
#[derive(Clone, Debug)]
pub(crate) struct EncodedResponse {
    entries: Vec<Bytes>,
    tail: Bytes,
}

impl EncodedResponse {
    pub(crate) fn new<N: AsRef<str>>(
        type_url: &str,
        nonce: &str,
        entries: Vec<Bytes>,
        removed: &[N],
    ) -> Self {
        let mut tail = BytesMut::with_capacity(type_url.len() + nonce.len() + 8);
        put_bytes(RESPONSE_TYPE_URL, type_url.as_bytes(), &mut tail);
        put_bytes(RESPONSE_NONCE, nonce.as_bytes(), &mut tail);
        for name in removed {
            put_bytes(RESPONSE_REMOVED, name.as_ref().as_bytes(), &mut tail);
        }
        Self { entries, tail: tail.freeze() }
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Bytes> {
        self.entries.iter().chain([&self.tail])
    }

    /// Bytes of the message, without the prefix of the gRPC frame.
    pub(crate) fn len(&self) -> usize {
        self.parts().map(Bytes::len).sum()
    }
}

/// The hash of the names and versions of a set of resources.
pub(crate) fn fingerprint<'a>(
    resource_type: ResourceType,
    resources: impl Iterator<Item = (&'a str, Version)>,
) -> Version {
    let mut content = resource_type.type_url().as_bytes().to_vec();
    for (name, version) in resources {
        content.extend_from_slice(&(name.len() as u64).to_be_bytes());
        content.extend_from_slice(name.as_bytes());
        content.extend_from_slice(&version.to_bytes());
    }
    Version::of(&content)
}

fn put_bytes(field: u32, bytes: &[u8], into: &mut impl bytes::BufMut) {
    encoding::encode_key(field, WireType::LengthDelimited, into);
    encoding::encode_varint(bytes.len() as u64, into);
    into.put_slice(bytes);
}
