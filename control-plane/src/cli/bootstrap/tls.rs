use crate::compile::XdsTls;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS to the discovery server (files as they are on the Envoy's machine)")]
pub(super) struct TlsArguments {
    /// File with the certificates of those who sign Clairvoy's (`listen.xds_tls`). Without it Envoy speaks clear text.
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<String>,
    /// Name that Clairvoy's certificate must have: a DNS name, an address or a URI [default: the host of --xds].
    #[arg(long, value_name = "NAME", requires = "tls_ca")]
    tls_san: Option<String>,
    /// File with the certificate that the Envoy shows (`listen.xds_clients`).
    #[arg(long, value_name = "FILE", requires = "tls_ca", requires = "tls_private_key")]
    tls_certificate: Option<String>,
    /// File with the key of that certificate.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_private_key: Option<String>,
}

impl TlsArguments {
    pub(super) fn read(&self) -> Option<XdsTls> {
        let ca = self.tls_ca.clone()?;
        Some(XdsTls {
            ca,
            san: self.tls_san.clone(),
            client: self.tls_certificate.clone().zip(self.tls_private_key.clone()),
        })
    }
}
