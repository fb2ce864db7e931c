//! What is listened on: addresses, and who is let in to the discovery server.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{
    Connection, Metrics as XdsMetrics, Peer, ServeError, ServerOptions, TransportOptions, VisibleGroups,
    XdsServer,
};

use crate::api::Token;
use crate::config::{Config, Listen};
use crate::envoy::gateway_for;
use crate::push::Surface;

use super::envoys::EnvoyServices;

pub(super) async fn bind(address: SocketAddr, field: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} ({field}); is another process there? set {field} in the configuration"
        )
    })
}

/// The addresses where senders push telemetry.
pub(super) async fn push_listeners(config: &Config) -> anyhow::Result<Vec<(Surface, TcpListener)>> {
    let push = &config.telemetry.push;
    let mut listeners = Vec::new();
    if let Some(address) = push.otlp_grpc {
        listeners.push((Surface::Grpc, bind(address, "telemetry.push.otlp_grpc").await?));
    }
    if let Some(address) = push.http {
        listeners.push((Surface::Http, bind(address, "telemetry.push.http").await?));
    }
    Ok(listeners)
}

/// The discovery server; an Envoy belongs to the gateway that names its `node.cluster`, or to the one that names none,
/// unless its certificate says otherwise.
pub(super) fn xds_server(config: &Arc<ArcSwap<Config>>, registry: &mut Registry) -> XdsServer {
    let config = Arc::clone(config);
    let mut options = ServerOptions::by_client(move |node, peer| {
        let identities = peer.map_or(&[][..], |peer: &Peer| &peer.identities);
        gateway_for(&config.load(), &node.cluster, identities).map(|gateway| gateway.name.into())
    });
    // The one layer is small, and what is late in the network is then never refused.
    options.full_heartbeats = true;
    XdsServer::with_metrics(options, XdsMetrics::register(registry))
}

/// Serves discovery, load reports and access logs until `stop`, and then sends the proxies elsewhere, one after the other.
pub(super) async fn serve_xds(
    xds: XdsServer,
    services: EnvoyServices,
    listener: TcpListener,
    door: Door,
    options: TransportOptions,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let mut routes = xds.routes().add_service(services.access_logs.access_log_service());
    if services.takes_load_reports {
        routes = routes.add_service(services.load_reports.load_reporting_service());
    }
    let door = Arc::new(door);
    let routes =
        routes.into_axum_router().layer(middleware::from_fn(move |mut request: Request, next: Next| {
            let door = Arc::clone(&door);
            async move {
                match door.refusal(&request) {
                    None => {
                        door.narrow(&mut request);
                        next.run(request).await
                    }
                    Some(message) => tonic::Status::unauthenticated(message).into_http(),
                }
            }
        }));
    clairvoy_xds::serve(listener, routes.into(), options, stop.cancelled_owned()).await
}

/// Who may use the discovery server: those with a certificate that is named, else those with the token, else everybody.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) listen: Listen,
    pub(super) token: Option<Token>,
}

impl Door {
    /// A certificate for some gateways shows the clients of those only.
    fn narrow(&self, request: &mut Request) {
        if let Some(gateways) = self.listen.only_gateways(identities(request)) {
            let visible = VisibleGroups::new(gateways);
            request.extensions_mut().insert(visible);
        }
    }

    fn refusal(&self, request: &Request) -> Option<&'static str> {
        if self.listen.knows_envoys() {
            let is_known = self.listen.admits(identities(request));
            return (!is_known).then_some("a certificate with a name of listen.xds_clients is needed");
        }
        let token = self.token.as_ref()?;
        let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.strip_prefix("Bearer "));
        let may_pass = shown.is_some_and(|shown| token.is(shown));
        (!may_pass).then_some("the token of listen.token_env is needed as a bearer token")
    }
}

/// The names in the certificate of the connection that a request came on.
fn identities(request: &Request) -> &[String] {
    let connection = request.extensions().get::<Connection>();
    connection.map_or(&[][..], |connection| &connection.peer.identities)
}
