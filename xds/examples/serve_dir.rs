//! Serves the resources in a folder to every client, and follows changes of the folder.
//!
//! `cargo run --example serve_dir -- --help` tells how the folder looks.

#[path = "serve_dir/admin.rs"]
mod admin;
#[path = "serve_dir/folder.rs"]
mod folder;
#[path = "serve_dir/follow.rs"]
mod follow;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clairvoy_xds::{
    Metrics, PemSource, ServerOptions, Tls, TlsOptions, TransportMetrics, TransportOptions, XdsServer, serve,
};
use clap::Parser;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use self::admin::Admin;
use self::follow::Follower;

/// Gives back the memory of streams that have gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const GROUP: &str = "all";

const ABOUT: &str = "\
Serves xDS resources from a folder to every client that connects.

Each file holds one resource as binary protobuf:

  DIR/cds/*.pb    envoy.config.cluster.v3.Cluster
  DIR/eds/*.pb    envoy.config.endpoint.v3.ClusterLoadAssignment
  DIR/lds/*.pb    envoy.config.listener.v3.Listener
  DIR/rds/*.pb    envoy.config.route.v3.RouteConfiguration
  DIR/sds/*.pb    envoy.extensions.transport_sockets.tls.v3.Secret
  DIR/rtds/*.pb   envoy.service.runtime.v3.Runtime
  DIR/.commit     its content does not matter

A resource is known by the name inside it; the name of its file does not matter.

The files together are one snapshot. They are read when the program starts, if there are any, and again
each time .commit is replaced or written: so write or delete the other files first, then .commit. A set
that is invalid is refused as a whole, every fault is told, and the last good one goes on being served.";

const EXAMPLES: &str = "\
Lines on standard output:
  listening xds=ADDRESS admin=ADDRESS    after the lines about what was there at the start
  published snapshot=NUMBER RTDS=COUNT SDS=COUNT CDS=COUNT EDS=COUNT LDS=COUNT RDS=COUNT [unchanged]
  refused faults=COUNT, then for each one: fault TEXT
  ack node=\"ID\" type=CDS latency_ms=MILLISECONDS
  nack node=\"ID\" type=CDS resources=[\"NAME\"] message=\"TEXT\"
  missed events=COUNT
  stopping
  stopped

Examples:
  serve_dir resources
  serve_dir --listen 127.0.0.1:0 --admin 127.0.0.1:0 resources     ports of the system's choice, printed
  touch resources/.commit                                          take the files as they are now
  curl http://127.0.0.1:18001/healthz                              200 while a snapshot is served
  RUST_LOG=debug serve_dir resources                               every connection and response

SIGTERM or Ctrl-C: no new connections, clients are sent elsewhere, exit 0. SIGHUP: read certificates again.";

/// Serves xDS resources from a folder.
#[derive(Debug, Parser)]
#[command(name = "serve_dir", long_about = ABOUT, after_long_help = EXAMPLES)]
struct Arguments {
    /// The folder with the resources
    dir: PathBuf,
    /// Where clients connect; not loopback only if you mean it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18000")]
    listen: SocketAddr,
    /// Where /healthz and /metrics are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:18001")]
    admin: SocketAddr,
    /// Certificate chain in PEM; with it, clients must use TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Key of the certificate in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Those who sign clients' certificates, in PEM; with it, clients must have one
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    client_ca: Option<PathBuf>,
    /// Ask clients to connect anew after about this time
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    max_connection_age_seconds: Option<Duration>,
    /// When stopping, end clients' streams one after the other over this time
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    drain_seconds: Duration,
    /// When stopping, cut off what is left after this more
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    grace_seconds: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

/// Writes a line to standard output. A reader that is gone is no reason to stop serving.
fn say(line: std::fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    anyhow::ensure!(arguments.dir.is_dir(), "{} is not a folder", arguments.dir.display());

    let mut registry = Registry::default();
    let server =
        XdsServer::with_metrics(ServerOptions::single_group(GROUP), Metrics::register(&mut registry));
    let mut transport = TransportOptions::default();
    transport.tls = tls(&arguments)?;
    transport.max_connection_age = arguments.max_connection_age_seconds;
    transport.drain = arguments.drain_seconds;
    transport.grace = arguments.grace_seconds;
    transport.metrics = TransportMetrics::register(&mut registry);

    let clients = TcpListener::bind(arguments.listen).await;
    let clients = clients.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let admin = TcpListener::bind(arguments.admin).await;
    let admin = admin.with_context(|| format!("cannot listen on {}", arguments.admin))?;
    let (serving, is_serving) = watch::channel(false);
    tokio::spawn(follow::clients(server.events()));
    let follower = Follower::start(arguments.dir, server.clone(), serving).await;
    say(format_args!("listening xds={} admin={}", clients.local_addr()?, admin.local_addr()?));

    let stopping = stop_on_signal(transport.tls.clone())?;
    let pages = Admin { registry: Arc::new(registry), serving: is_serving, stopping: stopping.clone() };
    tokio::spawn(axum::serve(admin, admin::router(pages)).into_future());
    tokio::spawn(follower.run());
    let stop = {
        let server = server.clone();
        async move {
            stopping.cancelled().await;
            server.drain();
        }
    };
    serve(clients, server.routes(), transport, stop).await?;
    say(format_args!("stopped"));
    Ok(())
}

fn tls(arguments: &Arguments) -> anyhow::Result<Option<Tls>> {
    let (Some(certificate), Some(key)) = (&arguments.tls_certificate, &arguments.tls_key) else {
        return Ok(None);
    };
    let options = TlsOptions {
        certificate_chain: PemSource::File(certificate.clone()),
        private_key: PemSource::File(key.clone()),
        client_ca: arguments.client_ca.clone().map(PemSource::File),
    };
    Ok(Some(Tls::new(options)?))
}

/// Cancelled by SIGTERM or Ctrl-C. SIGHUP reads the certificates again.
fn stop_on_signal(tls: Option<Tls>) -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stopping = CancellationToken::new();
    let stop = stopping.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
            }
            match tls.as_ref().map(Tls::reload) {
                Some(Ok(())) => tracing::info!("certificates read again"),
                Some(Err(error)) => tracing::error!(%error, "the earlier certificates stay"),
                None => {}
            }
        }
        say(format_args!("stopping"));
        stop.cancel();
    });
    Ok(stopping)
}
