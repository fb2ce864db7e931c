use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::MetricsAccess;

const PAGE: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 27\r\nconnection: close\r\n\r\n\
    vllm:num_requests_running 3";

/// A server that speaks TLS with a certificate of an own authority, which is returned as PEM.
async fn over_tls() -> (String, Arc<str>) {
    crate::telemetry::install_crypto_provider();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![own.der().clone()], key).unwrap()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(PAGE).await;
            let _ = stream.shutdown().await;
        }
    });
    (pem, address.into())
}

#[tokio::test]
async fn pages_behind_an_own_authority_are_read_with_its_certificate_only() {
    let (pem, address) = over_tls().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pem).unwrap();
    let target = |ca| ScrapeTarget {
        url: format!("https://{address}/metrics"),
        access: MetricsAccess { token_env: None, ca },
        ..ScrapeTarget::new(Arc::clone(&address))
    };
    let mut bench = Bench::start(OPTIONS, vec![target(Some(file.path().to_owned()))]);
    assert_eq!(bench.sample().await.running, Some(3.0));
    let failure = Bench::start(OPTIONS, vec![target(None)]).failure().await;
    assert!(matches!(failure, ScrapeFailure::Connect(_)), "{failure}");
    let failure = Bench::start(OPTIONS, vec![target(Some("/no/such/file".into()))]).failure().await;
    assert!(failure.to_string().contains("/no/such/file"), "{failure}");
}

#[tokio::test]
async fn the_token_is_shown_to_the_engine_s_page_only() {
    // Every process has it, and it holds no blanks.
    let name = "CARGO_PKG_NAME";
    let wanted = format!("Bearer {}", std::env::var(name).unwrap());
    let asked = move |headers: axum::http::HeaderMap| {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        std::future::ready(match shown == Some(wanted.as_str()) {
            true => Ok("vllm:num_requests_running 3\n"),
            false => Err(StatusCode::UNAUTHORIZED),
        })
    };
    let open = |headers: axum::http::HeaderMap| {
        std::future::ready(match headers.contains_key(header::AUTHORIZATION) {
            true => Err(StatusCode::IM_A_TEAPOT),
            false => Ok("DCGM_FI_DEV_GPU_UTIL 50\n"),
        })
    };
    let address = serve(Router::new().route("/metrics", get(asked)).route("/gpu", get(open))).await;
    let target = |token_env: Option<&str>| ScrapeTarget {
        access: MetricsAccess { token_env: token_env.map(str::to_owned), ca: None },
        ..ScrapeTarget::new(Arc::clone(&address)).with_gpu_template("http://{host}:{port}/gpu")
    };
    let sample = Bench::start(OPTIONS, vec![target(Some(name))]).sample().await;
    assert_eq!((sample.running, sample.gpu_utilisation), (Some(3.0), Some(0.5)));
    assert_eq!(Bench::start(OPTIONS, vec![target(None)]).failure().await, ScrapeFailure::Status(401));
    let failure = Bench::start(OPTIONS, vec![target(Some("CLAIRVOY_NOBODY_SET_THIS"))]).failure().await;
    assert!(failure.to_string().contains("CLAIRVOY_NOBODY_SET_THIS is not set"), "{failure}");
}
