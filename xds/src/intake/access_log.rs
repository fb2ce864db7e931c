//! Access logs.

use std::sync::Arc;
use std::time::SystemTime;

use envoy_types::pb::envoy::data::accesslog::v3::{HttpAccessLogEntry, TcpAccessLogEntry};

use super::node::ReportingNode;

/// A batch of entries, as one proxy worker sent it.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogs {
    /// Who logs.
    pub node: Arc<ReportingNode>,
    /// `log_name` of the access logger.
    pub log_name: Arc<str>,
    /// When it came in.
    pub at: SystemTime,
    /// What was logged.
    pub entries: AccessLogEntries,
}

/// The entries of a batch, all of one kind.
///
/// ```
/// use clairvoy_xds::AccessLogEntries;
///
/// fn failed(entries: &AccessLogEntries) -> usize {
///     let AccessLogEntries::Http(entries) = entries else { return 0 };
///     let codes = entries.iter().filter_map(|entry| entry.response.as_ref()?.response_code.as_ref());
///     codes.filter(|code| code.value >= 500).count()
/// }
/// assert_eq!(failed(&AccessLogEntries::Http(Vec::new())), 0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum AccessLogEntries {
    /// Of HTTP requests.
    Http(Vec<HttpAccessLogEntry>),
    /// Of TCP connections.
    Tcp(Vec<TcpAccessLogEntry>),
}

impl AccessLogEntries {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Http(entries) => entries.len(),
            Self::Tcp(entries) => entries.len(),
        }
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
