//! T15: who may connect, and as whom.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use clairvoy_xds::{PemSource, ServerOptions, Tls, TlsError, TlsOptions, TransportOptions, XdsServer};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::ads;
use crate::options;
use crate::toy::{Manner, Stream, eventually, start};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

struct Pair {
    certificate: String,
    key: String,
}

fn pair(issuer: &Authority, usage: ExtendedKeyUsagePurpose, names: Vec<SanType>) -> Pair {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.subject_alt_names = names;
    params.extended_key_usages = vec![usage];
    let certificate = params.signed_by(&key, issuer).unwrap().pem();
    Pair { certificate, key: key.serialize_pem() }
}

fn server_pair(issuer: &Authority) -> Pair {
    let names = vec![SanType::DnsName("localhost".try_into().unwrap())];
    pair(issuer, ExtendedKeyUsagePurpose::ServerAuth, names)
}

fn client_pair(issuer: &Authority) -> Pair {
    client_pair_of(issuer, "spiffe://example/edge")
}

fn client_pair_of(issuer: &Authority, uri: &str) -> Pair {
    let names =
        vec![SanType::DnsName("edge.example".try_into().unwrap()), SanType::URI(uri.try_into().unwrap())];
    pair(issuer, ExtendedKeyUsagePurpose::ClientAuth, names)
}

fn bytes(text: &str) -> PemSource {
    PemSource::Bytes(text.as_bytes().to_vec())
}

fn tls_options(server: &Pair, client_ca: Option<&Authority>) -> TlsOptions {
    TlsOptions {
        certificate_chain: bytes(&server.certificate),
        private_key: bytes(&server.key),
        client_ca: client_ca.map(|client_ca| bytes(&client_ca.pem())),
    }
}

fn with_tls(tls: Tls) -> TransportOptions {
    options(|options| options.tls = Some(tls))
}

async fn connect(
    address: SocketAddr,
    server_ca: &Authority,
    client: Option<&Pair>,
) -> Result<Channel, tonic::transport::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(server_ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match client {
        Some(client) => {
            let certificate = CertificateDer::from_pem_slice(client.certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connector = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let socket = TcpStream::connect(address).await?;
            let socket = connector.connect(ServerName::try_from("localhost").unwrap(), socket).await?;
            assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            Ok::<_, std::io::Error>(TokioIo::new(socket))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connector).await
}

/// Whether a stream can be opened. With TLS 1.3 a client learns that it was refused after its handshake.
async fn is_served(address: SocketAddr, server_ca: &Authority, client: Option<&Pair>) -> bool {
    match connect(address, server_ca, client).await {
        Ok(channel) => Stream::open(&channel).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn t15_a_service_sees_the_names_of_the_client() {
    let (server_ca, client_ca) = (authority(), authority());
    let tls = Tls::new(tls_options(&server_pair(&server_ca), Some(&client_ca))).unwrap();
    let server = start(Manner::Stay, with_tls(tls)).await;
    let channel = connect(server.address, &server_ca, Some(&client_pair(&client_ca))).await.unwrap();
    let (_stream, _) = Stream::greeted(&channel).await;
    assert_eq!(server.seen.last_identities(), ["spiffe://example/edge", "edge.example"]);
}

/// Whatever a node says of itself, its certificate decides.
#[tokio::test]
async fn t15_the_certificate_decides_what_a_client_gets() {
    let (server_ca, client_ca) = (authority(), authority());
    let tls = Tls::new(tls_options(&server_pair(&server_ca), Some(&client_ca))).unwrap();
    let server = XdsServer::new(ServerOptions::by_client(|_, peer| {
        let mut identities = peer?.identities.iter();
        identities.find_map(|identity| identity.strip_prefix("spiffe://example/")).map(Into::into)
    }));
    for group in ["edge", "inner"] {
        server.publish(group, ads::one_cluster(group));
    }
    let serving = ads::serving(&server, with_tls(tls)).await;
    let mut streams = Vec::new();
    for name in ["edge", "inner"] {
        let pair = client_pair_of(&client_ca, &format!("spiffe://example/{name}"));
        let channel = connect(serving.address, &server_ca, Some(&pair)).await.unwrap();
        let mut stream = Stream::open_with(&channel, ads::clusters("inner")).await.unwrap();
        let [cluster] = &stream.next().await.resources[..] else { panic!("one cluster") };
        assert_eq!(cluster.name, name);
        streams.push(stream);
    }
    let stranger = client_pair_of(&client_ca, "spiffe://other/edge");
    let channel = connect(serving.address, &server_ca, Some(&stranger)).await.unwrap();
    let mut stream = Stream::open_with(&channel, ads::clusters("inner")).await.unwrap();
    eventually("the stranger is there", || server.clients().len() == 3).await;
    let clients = server.clients();
    let seen = |i: usize| (clients[i].group.as_deref(), &*clients[i].peer.as_ref().unwrap().identities[0]);
    assert_eq!(seen(0), (Some("edge"), "spiffe://example/edge"));
    assert_eq!(seen(1), (Some("inner"), "spiffe://example/inner"));
    assert_eq!(seen(2), (None, "spiffe://other/edge"));
    assert!(stream.is_quiet(), "without a group nothing is sent");
}

#[tokio::test]
async fn t15_clients_without_a_good_certificate_are_refused() {
    let (server_ca, client_ca) = (authority(), authority());
    let tls = Tls::new(tls_options(&server_pair(&server_ca), Some(&client_ca))).unwrap();
    let server = start(Manner::Stay, with_tls(tls)).await;
    assert!(!is_served(server.address, &server_ca, None).await);
    assert!(!is_served(server.address, &server_ca, Some(&client_pair(&authority()))).await);
    assert!(!is_served(server.address, &server_ca, Some(&server_pair(&client_ca))).await, "not for clients");
    assert_eq!(server.seen.open_streams(), 0);
    assert!(is_served(server.address, &server_ca, Some(&client_pair(&client_ca))).await);
}

#[tokio::test]
async fn t15_without_a_client_ca_clients_have_no_names() {
    let server_ca = authority();
    let tls = Tls::new(tls_options(&server_pair(&server_ca), None)).unwrap();
    let server = start(Manner::Stay, with_tls(tls)).await;
    let channel = connect(server.address, &server_ca, None).await.unwrap();
    let (_stream, _) = Stream::greeted(&channel).await;
    assert!(server.seen.last_identities().is_empty());
}

#[tokio::test]
async fn t15_cleartext_is_refused_where_tls_is_spoken() {
    let server =
        start(Manner::Stay, with_tls(Tls::new(tls_options(&server_pair(&authority()), None)).unwrap()));
    let server = server.await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    if let Ok(channel) = endpoint.connect().await {
        assert!(Stream::open(&channel).await.is_err());
    }
    assert_eq!(server.metrics.connections(), 0);
}

fn write(folder: &Path, pair: &Pair, client_ca: &Authority) {
    std::fs::write(folder.join("chain.pem"), &pair.certificate).unwrap();
    std::fs::write(folder.join("key.pem"), &pair.key).unwrap();
    std::fs::write(folder.join("clients.pem"), client_ca.pem()).unwrap();
}

#[tokio::test]
async fn t15_certificates_are_reloaded_while_streams_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| PemSource::File(folder.path().join(name));
    let (old_ca, new_ca) = (authority(), authority());
    write(folder.path(), &server_pair(&old_ca), &old_ca);
    let tls = Tls::new(TlsOptions {
        certificate_chain: file("chain.pem"),
        private_key: file("key.pem"),
        client_ca: Some(file("clients.pem")),
    })
    .unwrap();
    let server = start(Manner::Stay, with_tls(tls.clone())).await;
    let old = client_pair(&old_ca);
    let channel = connect(server.address, &old_ca, Some(&old)).await.unwrap();
    let (mut stream, _) = Stream::greeted(&channel).await;

    // A key that is not of the certificate: the earlier ones stay.
    std::fs::write(folder.path().join("key.pem"), server_pair(&new_ca).key).unwrap();
    assert!(matches!(tls.reload().unwrap_err(), TlsError::Certificate(_)));
    assert!(is_served(server.address, &old_ca, Some(&old)).await);

    write(folder.path(), &server_pair(&new_ca), &new_ca);
    tls.reload().unwrap();
    assert!(!is_served(server.address, &new_ca, Some(&old)).await);
    assert!(is_served(server.address, &new_ca, Some(&client_pair(&new_ca))).await);
    eventually("only the first stream is left", || server.seen.open_streams() == 1).await;
    assert!(stream.is_quiet());
}

#[test]
fn t15_what_is_missing_is_named() {
    let server = server_pair(&authority());
    let without = TlsOptions { certificate_chain: bytes(&server.key), ..tls_options(&server, None) };
    let error = Tls::new(without).unwrap_err().to_string();
    assert!(error.starts_with("no certificate in "), "{error}");
    let missing = PemSource::File("/nonexistent/key.pem".into());
    let error = Tls::new(TlsOptions { private_key: missing, ..tls_options(&server, None) }).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nonexistent/key.pem: "), "{error}");
    assert!(!format!("{:?}", tls_options(&server, None)).contains("PRIVATE KEY"));
}
