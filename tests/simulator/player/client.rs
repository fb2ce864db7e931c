//! The HTTP client of everything here: plain HTTP to this machine.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// Builds a client that reuses connections, follows no proxy settings and trusts no certificate.
///
/// # Errors
///
/// When the client cannot be built.
pub fn loopback_client(request_timeout: Duration) -> anyhow::Result<reqwest::Client> {
    // The client wants a TLS set-up even for plain HTTP. Giving it one here spares a process-wide default.
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("cannot set TLS up")?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .connect_timeout(Duration::from_secs(5))
        .timeout(request_timeout)
        .build()
        .context("cannot build an HTTP client")
}
