//! Certificates, and who may connect.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::peer::identities;

/// Text in PEM format.
#[derive(Clone)]
pub enum PemSource {
    /// A file, read again by [`Tls::reload`].
    File(PathBuf),
    /// The text itself.
    Bytes(Vec<u8>),
}

impl PemSource {
    fn read(&self) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::File(path) => {
                std::fs::read(path).map_err(|source| TlsError::Read { path: path.clone(), source })
            }
            Self::Bytes(bytes) => Ok(bytes.clone()),
        }
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates = CertificateDer::pem_slice_iter(&self.read()?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| TlsError::Pem { of: self.to_string(), source })?;
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate { of: self.to_string() });
        }
        Ok(certificates)
    }
}

impl fmt::Display for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Bytes(bytes) => write!(f, "{} bytes of PEM", bytes.len()),
        }
    }
}

// Not derived: the bytes may be a private key.
impl fmt::Debug for PemSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where the certificates are.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// The server's certificate, then those that sign it, up to but without the root.
    pub certificate_chain: PemSource,
    /// The key of the first certificate: PKCS #8, PKCS #1 or SEC 1.
    pub private_key: PemSource,
    /// Certificates of those who sign the clients' certificates. If given, a client must show a certificate
    /// (mTLS); without, none is asked for.
    pub client_ca: Option<PemSource>,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Text is not PEM, or has not what is looked for.
    #[error("no usable PEM in {of}: {source}")]
    Pem {
        /// The file, or what the bytes are.
        of: String,
        /// Why.
        source: pem::Error,
    },
    /// There is no certificate in the text.
    #[error("no certificate in {of}")]
    NoCertificate {
        /// The file, or what the bytes are.
        of: String,
    },
    /// The certificates of those who sign clients' certificates cannot be used.
    #[error("unusable client CA: {0}")]
    ClientCa(#[from] VerifierBuilderError),
    /// A certificate cannot be used, or its key is another one's.
    #[error("unusable certificate: {0}")]
    Certificate(#[from] rustls::Error),
}

/// TLS for [`serve`](crate::serve), or for a server of the caller's: versions 1.2 and 1.3. Clones are handles of
/// the same certificates.
#[derive(Clone, Debug)]
pub struct Tls {
    options: Arc<TlsOptions>,
    /// Names of ALPN, the preferred one first.
    protocols: Arc<[Vec<u8>]>,
    config: Arc<ArcSwap<ServerConfig>>,
}

impl Tls {
    /// Reads the certificates, for HTTP/2 (`h2` by ALPN).
    ///
    /// # Errors
    ///
    /// A [`TlsError`] if something is missing or does not fit together.
    pub fn new(options: TlsOptions) -> Result<Self, TlsError> {
        Self::with_protocols(options, &["h2"])
    }

    /// Reads the certificates, for a server that speaks these protocols (names of ALPN, the preferred one first).
    ///
    /// # Errors
    ///
    /// A [`TlsError`] if something is missing or does not fit together.
    pub fn with_protocols(options: TlsOptions, protocols: &[&str]) -> Result<Self, TlsError> {
        let protocols: Arc<[Vec<u8>]> = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let config = ArcSwap::new(load(&options, &protocols)?);
        Ok(Self { options: Arc::new(options), protocols, config: Arc::new(config) })
    }

    /// Reads the certificates again, for connections that come from now on. Those that are open stay as they
    /// are; [`TransportOptions::max_connection_age`](crate::TransportOptions::max_connection_age) limits for
    /// how long. Reads files: not to be called where blocking hurts.
    ///
    /// # Errors
    ///
    /// A [`TlsError`]; then the earlier certificates stay in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.config.store(load(&self.options, &self.protocols)?);
        Ok(())
    }

    /// Shakes hands with a client, and returns the names in its verified certificate beside the stream, as in
    /// [`Peer::identities`](crate::Peer::identities). Has no limit of time.
    ///
    /// # Errors
    ///
    /// The client goes away, speaks no TLS, or has not the certificate that is asked for.
    pub async fn accept<S>(&self, socket: S) -> io::Result<(TlsStream<S>, Vec<String>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.config.load_full()).accept(socket).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let identities = certificates.and_then(<[_]>::first).map(identities).unwrap_or_default();
        Ok((stream, identities))
    }
}

fn load(options: &TlsOptions, protocols: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = options.certificate_chain.certificates()?;
    let key = PrivateKeyDer::from_pem_slice(&options.private_key.read()?)
        .map_err(|source| TlsError::Pem { of: options.private_key.to_string(), source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &options.client_ca {
        Some(client_ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in client_ca.certificates()? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = protocols.to_vec();
    // Connections live long, so resumption saves nothing; and a resumed session would not be verified again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
