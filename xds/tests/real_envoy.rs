//! The server and a real Envoy: the one of `CLAIRVOY_ENVOY`, or the one that the set-up has fetched.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by a panic")]

#[path = "support/fixtures.rs"]
mod fixtures;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clairvoy_xds::{
    ClientStatus, ResourceType, ServerOptions, Snapshot, SnapshotBuilder, SyncState, XdsServer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;

/// A proxy that warms a cluster without an answer of the server takes 15 s.
const PROMPT: Duration = Duration::from_secs(5);

struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn envoy_program() -> PathBuf {
    let fetched = || {
        let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
        folders.map(|folder| folder.join(".tools/envoy/envoy/_bin/envoy")).find(|program| program.exists())
    };
    std::env::var_os("CLAIRVOY_ENVOY")
        .map(PathBuf::from)
        .or_else(fetched)
        .expect("this test needs Envoy: run `cargo xtask setup`, or set CLAIRVOY_ENVOY")
}

fn start_envoy(xds: SocketAddr, directory: &Path) -> Envoy {
    let binary = envoy_program();
    let bootstrap = format!(
        r#"
node: {{ id: real, cluster: edge, locality: {{ region: r, zone: z }} }}
dynamic_resources:
  ads_config:
    api_type: DELTA_GRPC
    transport_api_version: V3
    grpc_services: [{{ envoy_grpc: {{ cluster_name: xds }} }}]
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: xds
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {} }} }} }}
"#,
        xds.port()
    );
    let path = directory.join("bootstrap.yaml");
    std::fs::write(&path, bootstrap).unwrap();
    let log = std::fs::File::create(directory.join("envoy.log")).unwrap();
    let mut command = Command::new(binary);
    command.arg("-c").arg(path).args(["--use-dynamic-base-id", "--concurrency", "1"]);
    Envoy(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

async fn serve(server: &XdsServer, address: &str) -> (SocketAddr, oneshot::Sender<()>) {
    let deadline = Instant::now() + PROMPT;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let address = listener.local_addr().unwrap();
    let router = tonic::transport::Server::builder().add_service(server.service());
    let (stop, stopped) = oneshot::channel();
    let stopped = async { drop(stopped.await) };
    tokio::spawn(router.serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped));
    (address, stop)
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
    let answer = tokio::time::timeout(PROMPT, exchange).await;
    let status = answer.ok().and_then(Result::ok);
    status.and_then(|answer| answer.split(' ').nth(1)?.parse().ok()).unwrap_or_default()
}

async fn eventually(what: &str, within: Duration, mut condition: impl AsyncFnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < within, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    start.elapsed()
}

fn client(server: &XdsServer) -> Option<ClientStatus> {
    server.clients().into_iter().next()
}

async fn in_sync(server: &XdsServer, what: &str) -> Duration {
    eventually(what, PROMPT, async || {
        client(server).is_some_and(|client| client.sync == SyncState::InSync && client.types[3].1.acks > 0)
    })
    .await
}

/// `/` goes to one cluster of those that exist.
fn snapshot(listen: u16, clusters: &[(&str, u64, u16)], routed: &str) -> Snapshot {
    let mut builder = SnapshotBuilder::new();
    for (name, settings, port) in clusters {
        builder.cluster(fixtures::cluster(name, *settings)).assignment(fixtures::assignment(name, *port));
    }
    builder.listener(fixtures::listener("front", listen, "routes"));
    let mut routes = fixtures::routes("routes", [routed]);
    let prefix = "/".to_owned();
    if let Some(matching) = &mut routes.virtual_hosts[0].routes[0].r#match {
        matching.path_specifier =
            Some(envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier::Prefix(prefix));
    }
    builder.route_configuration(routes);
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e2e_envoy_is_configured_changed_and_taken_over() {
    let directory = std::env::temp_dir().join(format!("xds-real-envoy-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (one, two) = (origin().await, origin().await);

    let server = XdsServer::new(ServerOptions::single_group("all"));
    server.publish("all", snapshot(listen, &[("a", 1000, one)], "a"));
    let (address, serving) = serve(&server, "127.0.0.1:0").await;
    let _envoy = start_envoy(address, &directory);
    let start = eventually("traffic flows", 4 * PROMPT, async || get(listen, "/").await == 200).await;
    in_sync(&server, "the first state is ACKed").await;

    // W1: a changed cluster is warm at once, since its endpoints come with it.
    server.publish("all", snapshot(listen, &[("a", 2000, one)], "a"));
    let warmed = in_sync(&server, "the changed cluster is ACKed").await;

    // O2 and O3: traffic moves from cluster to cluster, and no request is lost.
    let (stop, requests, failed) = <(Arc<AtomicBool>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let load = tokio::spawn({
        let (stop, requests, failed) = (stop.clone(), requests.clone(), failed.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let status = get(listen, "/").await;
                requests.fetch_add(1, Ordering::Relaxed);
                failed.fetch_add(u64::from(status != 200), Ordering::Relaxed);
            }
        }
    });
    for round in 0..10 {
        let name = if round % 2 == 0 { "b" } else { "a" };
        server.publish("all", snapshot(listen, &[(name, 1000, two)], name));
        in_sync(&server, "the move is ACKed").await;
    }
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {} requests", requests.load(Ordering::Relaxed));

    // D8: what Envoy refuses is not sent again, and what it had goes on.
    let mut bad = fixtures::cluster("bad", 1000);
    bad.lb_policy = 99;
    let mut builder = SnapshotBuilder::new();
    builder.cluster(bad).assignment(fixtures::assignment("bad", one));
    builder.cluster(fixtures::cluster("a", 1000)).assignment(fixtures::assignment("a", two));
    builder.listener(fixtures::listener("front", listen, "routes"));
    builder.route_configuration(fixtures::routes("routes", ["a"]));
    server.publish("all", builder.build().unwrap());
    eventually("the NACK is seen", PROMPT, async || {
        client(&server).is_some_and(|client| client.sync == SyncState::Nacked)
    })
    .await;
    let nacked = client(&server).unwrap();
    assert_eq!(nacked.last_nack.as_ref().unwrap().resource_type, ResourceType::Cluster);
    eventually("the old route serves", PROMPT, async || get(listen, "/a").await == 200).await;
    assert_eq!(client(&server).unwrap().nacks(), 1);

    // D6 and D10: another server with the same state has nothing to send.
    let last = snapshot(listen, &[("a", 1000, two)], "a");
    server.publish("all", last.clone());
    in_sync(&server, "the good state heals").await;
    drop(serving);
    server.shutdown();
    let successor = XdsServer::new(ServerOptions::single_group("all"));
    successor.publish("all", last);
    let _serving = serve(&successor, &address.to_string()).await;
    eventually("Envoy comes back", 6 * PROMPT, async || {
        client(&successor)
            .is_some_and(|client| client.sync == SyncState::InSync && client.types[3].1.subscribed)
    })
    .await;
    assert_eq!(client(&successor).unwrap().resources_sent(), 0);
    assert_eq!(get(listen, "/").await, 200);
    println!(
        "started in {start:?}, warmed in {warmed:?}, {} requests during the moves",
        requests.load(Ordering::Relaxed)
    );
    let _ = std::fs::remove_dir_all(&directory);
}
