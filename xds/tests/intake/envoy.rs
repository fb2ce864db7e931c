//! A real Envoy reports to the intake: the one of `CLAIRVOY_ENVOY`, or the one that the set-up has fetched.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clairvoy_xds::{AccessLogEntries, IntakeOptions, LoadReport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::harness::{PATIENCE, eventually, metric, next, serve};

struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn program() -> PathBuf {
    let fetched = || {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.map(|folder| folder.join(".tools/envoy/envoy/_bin/envoy")).find(|program| program.exists())
    };
    std::env::var_os("CLAIRVOY_ENVOY")
        .map(PathBuf::from)
        .or_else(fetched)
        .expect("this test needs Envoy: run `cargo xtask setup`, or set CLAIRVOY_ENVOY")
}

/// Listens on one port, forwards to another, and reports to a third.
fn bootstrap(listen: u16, origin: u16, intake: SocketAddr) -> String {
    let cluster = |name: &str, port: u16, options: &str| {
        format!(
            r#"
  - name: {name}
    type: STATIC
{options}
    load_assignment:
      cluster_name: {name}
      endpoints:
      - locality: {{ region: r, zone: z }}
        lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}"#
        )
    };
    let http2 = r#"    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"#;
    let (backend, intake) = (cluster("backend", origin, ""), cluster("intake", intake.port(), http2));
    format!(
        r#"
node: {{ id: real, cluster: edge, locality: {{ region: r, zone: z }} }}
cluster_manager:
  load_stats_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{{ envoy_grpc: {{ cluster_name: intake }} }}]
static_resources:
  listeners:
  - name: front
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: {listen} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          access_log:
          - name: envoy.access_loggers.http_grpc
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig
              common_config:
                log_name: front
                transport_api_version: V3
                grpc_service: {{ envoy_grpc: {{ cluster_name: intake }} }}
                buffer_flush_interval: 0.05s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{ match: {{ prefix: / }}, route: {{ cluster: backend }} }}]
          http_filters:
          - name: router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:{backend}{intake}
"#
    )
}

fn start(directory: &Path, bootstrap: &str) -> Envoy {
    let path = directory.join("bootstrap.yaml");
    std::fs::write(&path, bootstrap).unwrap();
    let log = std::fs::File::create(directory.join("envoy.log")).unwrap();
    let mut command = Command::new(program());
    command.arg("-c").arg(path).args(["--use-dynamic-base-id", "--concurrency", "1"]);
    Envoy(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

/// An HTTP server that answers everything with 200.
async fn origin() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while matches!(socket.read(&mut buffer).await, Ok(n) if n > 0) {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    port
}

/// The status of an answer; 0 when there is none.
async fn get(port: u16, path: &str) -> u16 {
    let exchange = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.ok().and_then(Result::ok);
    answer.and_then(|answer| answer.split(' ').nth(1)?.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t14_e2e_envoy_sends_load_reports_and_access_logs() {
    let directory = Directory(std::env::temp_dir().join(format!("xds-intake-envoy-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0).unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();

    let (intake, mut received, registry) = super::with_metrics(IntakeOptions::default());
    intake.set_load_reporting_interval(Duration::from_millis(200)).unwrap();
    let bootstrap = bootstrap(listen, origin().await, serve(&intake).await);
    let envoy = start(&directory.0, &bootstrap);

    let deadline = Instant::now() + 2 * PATIENCE;
    while get(listen, "/first").await != 200 {
        assert!(Instant::now() < deadline, "traffic flows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What happened before the first report of a cluster need not be in it.
    let tracked =
        |report: &LoadReport| report.cluster_stats.iter().any(|stats| stats.cluster_name == "backend");
    while !tracked(&next(&mut received.load_reports).await) {}
    for number in 0..20 {
        assert_eq!(get(listen, &format!("/{number}")).await, 200);
    }

    let mut issued = 0;
    while issued < 20 {
        let report = next(&mut received.load_reports).await;
        assert_eq!((report.node.id.as_str(), report.node.cluster.as_str()), ("real", "edge"));
        assert_eq!((report.node.region.as_str(), report.node.zone.as_str()), ("r", "z"));
        for stats in report.cluster_stats.iter().filter(|stats| stats.cluster_name == "backend") {
            let interval = LoadReport::interval(stats).unwrap();
            assert!(interval >= Duration::from_millis(100), "{interval:?}");
            let localities = stats.upstream_locality_stats.iter();
            issued += localities.map(|locality| locality.total_issued_requests).sum::<u64>();
        }
    }

    let mut paths = BTreeSet::new();
    while paths.len() < 21 {
        let logs = next(&mut received.access_logs).await;
        assert_eq!((logs.node.id.as_str(), &*logs.log_name), ("real", "front"));
        let AccessLogEntries::Http(entries) = logs.entries else { panic!("entries of HTTP") };
        for entry in entries {
            assert_eq!(entry.common_properties.unwrap().upstream_cluster, "backend");
            assert_eq!(entry.response.unwrap().response_code.unwrap().value, 200);
            paths.insert(entry.request.unwrap().path);
        }
    }
    let mut expected: BTreeSet<_> = (0..20).map(|number| format!("/{number}")).collect();
    expected.insert("/first".into());
    assert_eq!(paths, expected);

    let messages = metric(&registry, "xds_intake_messages_total", "lrs");
    let bytes = metric(&registry, "xds_intake_bytes_total", "lrs");
    println!("{} bytes for each load report", bytes / messages);
    drop(envoy);
    eventually("the streams of an Envoy that is gone are freed", || {
        metric(&registry, "xds_intake_streams", "lrs") + metric(&registry, "xds_intake_streams", "als") == 0
    })
    .await;
}
