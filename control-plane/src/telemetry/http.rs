use std::time::Duration;

/// Makes ring the TLS provider of the process; later calls change nothing.
///
/// Every HTTP client of the process needs a provider before it is built, even when it only speaks plain HTTP.
pub fn install_crypto_provider() {
    // Fails when a provider is installed already, which is just as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Starts an HTTP client for machines that we are told to call: no redirects, no proxy from the environment.
///
/// Without `tls` the system's certificates are not read, so that plain HTTP works where there are none.
pub(crate) fn client_builder(tls: bool, connect_timeout: Duration) -> reqwest::ClientBuilder {
    install_crypto_provider();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("clairvoy/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(connect_timeout);
    if tls { builder } else { builder.tls_certs_only([]) }
}

/// Returns the innermost cause of an error, which names what happened; the outer ones only repeat the URL.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
