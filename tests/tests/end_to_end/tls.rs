//! Who may connect, and as whom, where TLS is spoken.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use clairvoy_tests::SpeedClass;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{
    Authority, Chat, Clairvoy, Envoy, Site, backend, free_address, holds_for, model_server, otlp, until,
};

async fn counted(clairvoy: &Clairvoy, series: &str) {
    until("it is counted", 30, async || {
        let page = clairvoy.metrics().await;
        let line = page.lines().find(|line| line.starts_with(series)).unwrap_or_default().to_owned();
        if line.is_empty() || line.ends_with(" 0") { Err(format!("{series}: {line}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoys_get_in_by_their_certificates_only() {
    let server = model_server("chat", SpeedClass::Fast);
    let mut site = Site::new();
    let folder = site.path().to_owned();
    let (ours, foreign) = (Authority::new(&folder, "ours"), Authority::new(&folder, "foreign"));
    ours.issue(&folder, "server", "127.0.0.1");
    ours.issue(&folder, "edge", "spiffe://test/edge");
    ours.issue(&folder, "other", "spiffe://test/other");
    ours.issue_expired(&folder, "expired", "spiffe://test/edge");
    foreign.issue(&folder, "stranger", "spiffe://test/edge");
    // The token is for people: Envoys neither need nor see it.
    site.listen_keys = "token_env: FLEET_TOKEN, \
                        xds_tls: { certificate: server.pem, private_key: server.key, client_ca: ours.pem }, \
                        xds_clients: [{ san: \"spiffe://test/edge\", gateways: [edge] }]";
    site.set("FLEET_TOKEN", "correct horse battery staple");
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\"] }}\n",
        server.address()
    ));
    let clairvoy = site.serve().await.with_token("correct horse battery staple");

    let shows = |ca: &'static str, name: &str| {
        ["--tls-ca", ca, "--tls-certificate"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{name}.pem"), "--tls-private-key".to_owned(), format!("{name}.key")])
            .collect::<Vec<_>>()
    };
    let mut other_server = shows("ours.pem", "edge");
    other_server.extend(["--tls-san", "clairvoy.example"].map(str::to_owned));
    for (who, arguments) in [
        ("without TLS", vec!["--token-env".to_owned(), "FLEET_TOKEN".to_owned()]),
        ("without a certificate", vec!["--tls-ca".to_owned(), "ours.pem".to_owned()]),
        ("with one of another CA", shows("ours.pem", "stranger")),
        ("with one whose time is over", shows("ours.pem", "expired")),
        ("with one of another name", shows("ours.pem", "other")),
        ("that trusts another CA", shows("foreign.pem", "edge")),
        ("that looks for another server", other_server),
    ] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let envoy = Envoy::launch(&site, &arguments).await;
        until("it has tried", 30, async || {
            let connections = envoy.stat("cluster.clairvoy_xds.upstream_cx_total").await;
            let requests = envoy.stat("cluster.clairvoy_xds.upstream_rq_total").await;
            if connections + requests >= 4 { Ok(()) } else { Err(format!("{who}: {connections} {requests}")) }
        })
        .await;
        holds_for(who, 0.5, async || match envoy.stat("listener_manager.listener_added").await {
            0 if clairvoy.state().await?.proxies.is_empty() => Ok(()),
            added => Err(format!("{added} listeners, or connected")),
        })
        .await;
    }

    let edge = shows("ours.pem", "edge");
    let edge: Vec<&str> = edge.iter().map(String::as_str).collect();
    let friend = Envoy::launch(&site, &edge).await;
    friend.wait_until_routing().await;
    clairvoy.in_sync().await;
    Chat::new(site.gateway, "chat", 5).stream().await.unwrap();
    counted(&clairvoy, "clairvoy_envoy_load_reports_total{outcome=\"taken\"}").await;
    counted(&clairvoy, "clairvoy_envoy_log_entries_total{outcome=\"kept\"}").await;
    let dump = friend.admin("/config_dump").await.to_string();
    assert!(
        !dump.contains("correct horse") && dump.contains("HttpGrpcAccessLogConfig"),
        "the token was sent"
    );

    // A key of another certificate is not taken; a whole new pair is, and open streams go on.
    let later = Authority::new(&folder, "later");
    let old_key = fs::read(folder.join("server.key")).unwrap();
    later.issue(&folder, "next", "127.0.0.1");
    fs::copy(folder.join("next.key"), folder.join("server.key")).unwrap();
    counted(&clairvoy, "clairvoy_tls_reloads_total{listener=\"listen.xds_tls\",outcome=\"refused\"}").await;
    fs::write(folder.join("server.key"), old_key).unwrap();
    counted(&clairvoy, "clairvoy_tls_reloads_total{listener=\"listen.xds_tls\",outcome=\"taken\"}").await;
    fs::rename(folder.join("next.pem"), folder.join("server.pem")).unwrap();
    fs::rename(folder.join("next.key"), folder.join("server.key")).unwrap();
    counted(&clairvoy, "clairvoy_tls_reloads_total{listener=\"listen.xds_tls\",outcome=\"taken\"} 2").await;
    assert_eq!(clairvoy.in_sync().await.acks, clairvoy.state().await.unwrap().proxies[0].acks);
    drop(friend);
    let next = shows("later.pem", "edge");
    let next: Vec<&str> = next.iter().map(String::as_str).collect();
    let friend = Envoy::launch(&site, &next).await;
    friend.wait_until_routing().await;
}

/// Sends one value with curl; none where the connection was refused.
fn curl(
    site: &Site,
    http: SocketAddr,
    certificate: Option<&str>,
    backend: SocketAddr,
) -> Option<(u16, String)> {
    let body = json!({"backend": backend.to_string(), "queue_depth": 2}).to_string();
    let mut command = Command::new("curl");
    command.current_dir(site.path()).args([
        "-sS",
        "--noproxy",
        "*",
        "--max-time",
        "20",
        "--cacert",
        "ours.pem",
    ]);
    if let Some(name) = certificate {
        command.args(["--cert", &format!("{name}.pem"), "--key", &format!("{name}.key")]);
    }
    command.args(["-H", "Content-Type: application/json", "-w", "\n%{http_code}", "-d", &body]);
    let output = command.arg(format!("https://{http}/api/v1/telemetry")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n')?;
    Some((status.parse().unwrap(), body.to_owned())).filter(|_| output.status.success())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_write_to_the_pools_of_their_certificate_only() {
    let [grpc, http, of_a, of_b, by_grpc, by_http] = [(); 6].map(|()| free_address());
    let site = Site::new();
    let folder = site.path().to_owned();
    let (ours, foreign) = (Authority::new(&folder, "ours"), Authority::new(&folder, "foreign"));
    ours.issue(&folder, "server", "127.0.0.1");
    for (file, san) in
        [("a", "spiffe://test/a"), ("b", "collector.b.example"), ("c", "spiffe://test/unheard-of")]
    {
        ours.issue(&folder, file, san);
    }
    ours.issue_expired(&folder, "expired", "spiffe://test/a");
    foreign.issue(&folder, "stranger", "spiffe://test/a");
    site.configure(&format!(
        "telemetry:\n  push:\n    otlp_grpc: {grpc}\n    http: {http}\n    \
         tls: {{ certificate: server.pem, private_key: server.key, client_ca: ours.pem }}\n    \
         clients: [{{ san: \"spiffe://test/a\", pools: [a] }}, {{ san: collector.b.example, pools: [b] }}]\n\
         models:\n  - {{ name: chat, pools: [a, b] }}\n\
         pools:\n  - {{ name: a, telemetry: push, backends: [\"{of_a}\", \"{by_grpc}\", \"{by_http}\"] }}\n  \
         - {{ name: b, telemetry: push, backends: [\"{of_b}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    for certificate in [None, Some("stranger"), Some("expired")] {
        assert_eq!(curl(&site, http, certificate, of_a), None, "{certificate:?}");
    }
    for (certificate, status) in [("c", 401), ("b", 403), ("a", 200)] {
        let (answered, body) = curl(&site, http, Some(certificate), of_a).unwrap();
        assert_eq!(answered, status, "{certificate}: {body}");
    }
    assert_eq!(curl(&site, http, Some("b"), of_b).unwrap().0, 200);
    counted(&clairvoy, "clairvoy_push_handshakes_failed_total 3").await;

    let certificates = ["CERTIFICATE ours.pem", "CLIENT_CERTIFICATE a.pem", "CLIENT_KEY a.key"].map(|pair| {
        let (name, file) = pair.split_once(' ').unwrap();
        (format!("OTEL_EXPORTER_OTLP_{name}"), folder.join(file).display().to_string())
    });
    let _grpc = otlp(&site, "grpc", &format!("https://{grpc}"), &by_grpc, 3, &certificates);
    let _http = otlp(&site, "http", &format!("https://{http}/v1/metrics"), &by_http, 4, &certificates);
    clairvoy
        .state_where("all have telemetry", |state| {
            [(of_a, 2.0), (of_b, 2.0), (by_grpc, 3.0), (by_http, 4.0)].iter().all(|(address, depth)| {
                backend(state, *address).is_some_and(|backend| backend.queue_depth == Some(*depth))
            })
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_and_its_page_speak_tls() {
    let mut site = Site::new();
    let folder = site.path().to_owned();
    Authority::new(&folder, "ours").issue(&folder, "server", "127.0.0.1");
    site.listen_keys = "api_tls: { certificate: server.pem, private_key: server.key }";
    site.configure("");
    let clairvoy = site.launch();
    let roots = reqwest::Certificate::from_pem(&fs::read(folder.join("ours.pem")).unwrap()).unwrap();
    clairvoy::telemetry::install_crypto_provider();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([roots]).build().unwrap();
    let get = async |path: &str| {
        let answer = client.get(format!("https://{}{path}", site.api)).send().await;
        answer.map_err(|error| format!("{error:?}"))
    };
    until("it is ready", 60, async || match get("/readyz").await?.status() {
        StatusCode::OK => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    // A client that says nothing holds up no other.
    let _silent = tokio::net::TcpStream::connect(site.api).await.unwrap();
    assert_eq!(get("/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(get("/api/v1/state").await.unwrap().status(), StatusCode::OK);
    assert!(crate::support::client().get(format!("http://{}/", site.api)).send().await.is_err());
    assert!(clairvoy.stop().success());
}

#[test]
fn certificates_that_cannot_be_used_are_named() {
    let mut site = Site::new();
    let folder = site.path().to_owned();
    let ours = Authority::new(&folder, "ours");
    ours.issue(&folder, "server", "127.0.0.1");
    ours.issue(&folder, "other", "127.0.0.1");
    for (keys, expected) in [
        ("xds_tls: { certificate: absent.pem, private_key: server.key }", "absent.pem"),
        ("api_tls: { certificate: server.pem, private_key: other.key }", "listen.api_tls"),
    ] {
        site.listen_keys = keys;
        site.configure("");
        let output = site.run(&["serve", "--config", site.config_file().to_str().unwrap()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(expected), "{said}");
    }
}
