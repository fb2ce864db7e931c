//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::order::Order;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// The names in its verified certificate: URIs first, for example SPIFFE ids, then DNS names, each in
    /// the order of the certificate. Empty for a client that had to show none.
    pub identities: Vec<String>,
}

/// The connection that a request came on: an extension of every request that [`serve`](crate::serve) hands to
/// a service.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: Arc<Peer>,
    /// Cancelled when the streams of the connection are to end, so that the client goes elsewhere: it is too
    /// old, or the server shuts down. The client was told before not to open new ones. A stream that is still
    /// open [`TransportOptions::grace`](crate::TransportOptions::grace) later is cut off.
    pub drain: Order,
}

/// URIs and DNS names among the subject's alternative names. Nothing for a certificate that cannot be read;
/// such a one is not verified either.
pub(super) fn identities(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(str::to_owned).collect()
}
