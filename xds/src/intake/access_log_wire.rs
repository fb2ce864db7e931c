//! Access logs on the wire.

use bytes::Bytes;
use envoy_types::pb::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};
use envoy_types::pb::envoy::service::accesslog::v3::stream_access_logs_message::{
    HttpAccessLogEntries, LogEntries, TcpAccessLogEntries,
};
use prost::{DecodeError, Message};

use super::access_log::AccessLogEntries;
use super::gate::Size;
use super::node::NodeFields;

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage`, with entries that are counted and not decoded.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Outline {
    #[prost(message, optional, tag = "1")]
    pub(super) identifier: Option<Identifier>,
    #[prost(message, optional, tag = "2")]
    http_logs: Option<Count>,
    #[prost(message, optional, tag = "3")]
    tcp_logs: Option<Count>,
}

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage.Identifier`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Identifier {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<NodeFields>,
    #[prost(string, tag = "2")]
    pub(super) log_name: String,
}

/// An element takes no memory.
#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(message, repeated, tag = "1")]
    log_entry: Vec<()>,
}

/// `envoy.service.accesslog.v3.StreamAccessLogsMessage` without the identifier.
#[derive(Clone, PartialEq, prost::Message)]
struct EntriesOnly {
    #[prost(oneof = "LogEntries", tags = "2, 3")]
    log_entries: Option<LogEntries>,
}

impl Outline {
    pub(super) fn read(message: &Bytes) -> Result<Self, DecodeError> {
        Self::decode(message.clone())
    }

    /// The size of the entries. An entry of a few bytes makes more than a kilobyte in memory.
    pub(super) fn size(&self, message: &Bytes) -> Size {
        let (http, tcp) = (count(self.http_logs.as_ref()), count(self.tcp_logs.as_ref()));
        let bytes = http * size_of::<HttpAccessLogEntry>() + tcp * size_of::<TcpAccessLogEntry>();
        Size { entries: http + tcp, bytes: bytes + message.len() }
    }

    /// Decodes the entries into a list that is long enough from the start.
    pub(super) fn entries(&self, message: &Bytes) -> Result<AccessLogEntries, DecodeError> {
        let http = || HttpAccessLogEntries { log_entry: Vec::with_capacity(count(self.http_logs.as_ref())) };
        let tcp = || TcpAccessLogEntries { log_entry: Vec::with_capacity(count(self.tcp_logs.as_ref())) };
        let log_entries = match (&self.http_logs, &self.tcp_logs) {
            (Some(_), None) => Some(LogEntries::HttpLogs(http())),
            (None, Some(_)) => Some(LogEntries::TcpLogs(tcp())),
            // Of two kinds, which no proxy sends, the last one counts: left to the decoder.
            _ => None,
        };
        let mut entries = EntriesOnly { log_entries };
        entries.merge(message.clone())?;
        Ok(match entries.log_entries {
            Some(LogEntries::HttpLogs(entries)) => AccessLogEntries::Http(entries.log_entry),
            Some(LogEntries::TcpLogs(entries)) => AccessLogEntries::Tcp(entries.log_entry),
            None => AccessLogEntries::Http(Vec::new()),
        })
    }
}

fn count(logs: Option<&Count>) -> usize {
    logs.map_or(0, |logs| logs.log_entry.len())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{Extension, Locality, Node};
    use envoy_types::pb::envoy::data::accesslog::v3::{
        AccessLogCommon, HttpRequestProperties, HttpResponseProperties,
    };
    use envoy_types::pb::envoy::service::accesslog::v3::{
        StreamAccessLogsMessage, stream_access_logs_message,
    };
    use proptest::prelude::*;

    use super::*;

    fn http_entry(path: String) -> HttpAccessLogEntry {
        let text = |pairs: [(&str, &str); 3]| {
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
        };
        HttpAccessLogEntry {
            common_properties: Some(AccessLogCommon {
                upstream_cluster: "backend".into(),
                custom_tags: text([("model", "m"), ("tokens", "12"), ("class", "batch")]),
                ..Default::default()
            }),
            request: Some(HttpRequestProperties {
                path,
                authority: "service.example".into(),
                ..Default::default()
            }),
            response: Some(HttpResponseProperties {
                response_body_bytes: 1234,
                response_code_details: "via_upstream".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn entries(paths: Vec<String>, tcp: bool) -> LogEntries {
        if tcp {
            let log_entry = paths.iter().map(|_| TcpAccessLogEntry::default()).collect();
            LogEntries::TcpLogs(TcpAccessLogEntries { log_entry })
        } else {
            let log_entry = paths.into_iter().map(http_entry).collect();
            LogEntries::HttpLogs(HttpAccessLogEntries { log_entry })
        }
    }

    proptest! {
        #[test]
        fn entries_are_those_of_a_full_decoding(
            id in ".{0,20}",
            extensions in prop::collection::vec(".{0,40}", 0..20),
            log_name in ".{0,20}",
            batches in prop::collection::vec((prop::collection::vec(".{0,20}", 0..5), any::<bool>()), 0..3),
        ) {
            let extensions = extensions.into_iter();
            let node = Node {
                id: id.clone(),
                extensions: extensions.map(|name| Extension { name, ..Default::default() }).collect(),
                locality: Some(Locality { zone: "z".into(), ..Default::default() }),
                ..Default::default()
            };
            let identifier =
                stream_access_logs_message::Identifier { node: Some(node), log_name: log_name.clone() };
            // Encoded one after the other, messages are one message.
            let mut encoded = StreamAccessLogsMessage { identifier: Some(identifier), log_entries: None }
                .encode_to_vec();
            let mut expected = 0;
            for (paths, tcp) in batches {
                expected += paths.len();
                let log_entries = Some(entries(paths, tcp));
                encoded.extend(StreamAccessLogsMessage { identifier: None, log_entries }.encode_to_vec());
            }
            let encoded = Bytes::from(encoded);
            let full = StreamAccessLogsMessage::decode(encoded.clone()).unwrap();
            let outline = Outline::read(&encoded).unwrap();
            let identifier = outline.identifier.clone().unwrap();
            prop_assert_eq!(identifier.node.unwrap().id, id);
            prop_assert_eq!(identifier.log_name, log_name);
            prop_assert_eq!(outline.size(&encoded).entries, expected);
            let full = match full.log_entries {
                Some(LogEntries::HttpLogs(logs)) => AccessLogEntries::Http(logs.log_entry),
                Some(LogEntries::TcpLogs(logs)) => AccessLogEntries::Tcp(logs.log_entry),
                None => AccessLogEntries::Http(Vec::new()),
            };
            prop_assert_eq!(outline.entries(&encoded).unwrap(), full);
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = Bytes::from(bytes);
            if let Ok(outline) = Outline::read(&bytes) {
                let _ = outline.entries(&bytes);
            }
        }
    }

    #[test]
    fn empty_entries_have_the_size_that_they_take_in_memory() {
        let logs = HttpAccessLogEntries { log_entry: vec![HttpAccessLogEntry::default(); 1000] };
        let message =
            StreamAccessLogsMessage { identifier: None, log_entries: Some(LogEntries::HttpLogs(logs)) };
        let encoded = Bytes::from(message.encode_to_vec());
        let size = Outline::read(&encoded).unwrap().size(&encoded);
        assert!(encoded.len() < 3000);
        assert!(size.bytes >= 1000 * size_of::<HttpAccessLogEntry>(), "{size:?}");
    }
}
