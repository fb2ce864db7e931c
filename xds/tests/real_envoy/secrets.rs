//! A listener whose certificate comes from the server.

use std::sync::Arc;

use clairvoy_xds::{Snapshot, SnapshotBuilder};
use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, TlsCertificate, secret,
};
use envoy_types::util::pack_any;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::for_each_variant;
use crate::http::{self, Failure, Http};
use crate::load::Load;
use crate::resources;
use crate::served::Subscription;
use crate::serving::eventually;
use crate::stack::{self, Site};

const SECRET: &str = "front-certificate";
const HOST: &str = "front.test";
const ROTATIONS: usize = 4;

/// Signs certificates, and makes clients that trust them.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    trust: Arc<ClientConfig>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut roots = RootCertStore::empty();
        roots.add(params.self_signed(&key).unwrap().der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { issuer: Issuer::new(params, key), trust: Arc::new(trust) }
    }

    /// A new certificate with its key, and its DER form in hexadecimal.
    fn secret(&self) -> (Secret, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([HOST.to_owned()]).unwrap();
        let certificate = certificate.signed_by(&key, &self.issuer).unwrap();
        let inline =
            |text| DataSource { specifier: Some(Specifier::InlineString(text)), ..Default::default() };
        let pair = TlsCertificate {
            certificate_chain: Some(inline(certificate.pem())),
            private_key: Some(inline(key.serialize_pem())),
            ..Default::default()
        };
        let secret = Secret { name: SECRET.into(), r#type: Some(secret::Type::TlsCertificate(pair)) };
        (secret, fingerprint(certificate.der()))
    }
}

fn fingerprint(der: &[u8]) -> String {
    der.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn state(subscription: Subscription, port: u16, secret: Secret) -> Snapshot {
    let source = SdsSecretConfig { name: SECRET.into(), sds_config: Some(stack::source(subscription)) };
    let tls = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![source],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut listener = stack::listener(subscription);
    listener.filter_chains[0].transport_socket = Some(TransportSocket {
        name: "tls".into(),
        config_type: Some(ConfigType::TypedConfig(pack_any(tls))),
    });
    let mut builder = SnapshotBuilder::new();
    stack::add_clusters(&mut builder, subscription, &[("a", port)]);
    builder.listener(listener).route_configuration(resources::routes(&[("a", 1)])).secret(secret);
    builder.build().unwrap()
}

/// One request over a connection of its own. The body is the certificate that the listener showed.
async fn get(trust: Arc<ClientConfig>, port: u16) -> Result<(u16, String), Failure> {
    let socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let socket = TlsConnector::from(trust).connect(ServerName::try_from(HOST)?, socket).await?;
    let shown = socket.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let shown = fingerprint(shown.ok_or("no certificate")?);
    let (status, _) = Http::over(socket).await?.get("/").await?;
    Ok((status, shown))
}

/// Serves HTTPS and rotates the certificate under load.
pub(crate) async fn rotate(subscription: Subscription) {
    let authority = Authority::new();
    let origin = http::origin("one").await;
    let (secret, mut shown) = authority.secret();
    let site = Site::start(subscription, state(subscription, origin, secret)).await;

    let mut port = 0;
    eventually("HTTPS is served", async || {
        port = site.envoy.listener_port().await.unwrap_or_default();
        port != 0 && matches!(get(authority.trust.clone(), port).await, Ok((200, _)))
    })
    .await;
    let trust = authority.trust.clone();
    let load = Load::repeating(move |_| {
        let answer = get(trust.clone(), port);
        async { Ok((answer.await?, None)) }
    });
    for _ in 0..ROTATIONS {
        load.reaches(&shown).await;
        let (secret, next) = authority.secret();
        site.publish(state(subscription, origin, secret)).await;
        shown = next;
    }
    load.reaches(&shown).await;
    let tally = load.finish().await;
    tally.is_clean();
    println!("{} handshakes", tally.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_t1_a_secret_is_served_and_rotated_without_a_failed_handshake() {
    for_each_variant(rotate).await;
}
