//! What is listened on: addresses, and who is let in to the discovery server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{self, Next};
use envoy_types::pb::envoy::config::core::v3::Node;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use clairvoy_xds::{
    Connection, Metrics as XdsMetrics, Peer, ServeError, ServerOptions, TransportOptions, VisibleGroups,
    XdsServer,
};

use crate::api::Token;
use crate::config::{Config, Listen, Model, proxy_number};
use crate::decide::Zone;
use crate::envoy::{canary_group, gateway_for, parts_of_group, zone_group};
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

/// Groups of Envoys in zones that have a state of their own, by name.
pub(super) type ZoneGroups = Arc<ArcSwap<BTreeSet<String>>>;

/// The discovery server; an Envoy belongs to the gateway that names its `node.cluster`, or to the one that names none,
/// unless its certificate says otherwise; to the group of its zone, where that has a state of its own; and to the canaries of
/// that, where its number is below a share of proxies.
pub(super) fn xds_server(
    config: &Arc<ArcSwap<Config>>,
    groups: &ZoneGroups,
    registry: &mut Registry,
) -> XdsServer {
    let (config, groups) = (Arc::clone(config), Arc::clone(groups));
    let mut options = ServerOptions::by_client(move |node, peer| {
        let identities = peer.map_or(&[][..], |peer: &Peer| &peer.identities);
        group_of(&config.load(), &groups.load(), node, identities)
    });
    // The one layer is small, and what is late in the network is then never refused.
    options.full_heartbeats = true;
    XdsServer::with_metrics(options, XdsMetrics::register(registry))
}

fn group_of(
    config: &Config,
    zone_groups: &BTreeSet<String>,
    node: &Node,
    identities: &[String],
) -> Option<Arc<str>> {
    let gateway = gateway_for(config, &node.cluster, identities)?;
    let zone = node.locality.as_ref().and_then(|place| Zone::of_node(&place.region, &place.zone));
    let group = zone.map(|zone| zone_group(&gateway.name, &zone));
    let group = group.filter(|group| zone_groups.contains(group)).unwrap_or(gateway.name);
    let number = proxy_number(&node.id);
    let shares = config.models.iter().filter_map(Model::steered_proxies);
    let shares: BTreeSet<u32> = shares.filter(|percent| number < *percent).collect();
    // The smallest that there is: it has what the larger ones have, and more.
    let mut canaries = shares.into_iter().map(|percent| canary_group(&group, percent));
    let canary = canaries.find(|group| zone_groups.contains(group));
    Some(canary.unwrap_or(group).into())
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
    pub(super) zone_groups: ZoneGroups,
}

impl Door {
    /// A certificate for some gateways shows the clients of those only.
    fn narrow(&self, request: &mut Request) {
        if let Some(gateways) = self.listen.only_gateways(identities(request)) {
            let mut groups: Vec<String> = gateways.into_iter().map(Into::into).collect();
            let zones = self.zone_groups.load();
            let is_visible =
                |group: &&String| groups.iter().any(|gateway| gateway == parts_of_group(group).0);
            let of_zones: Vec<String> = zones.iter().filter(is_visible).cloned().collect();
            groups.extend(of_zones);
            let visible = VisibleGroups::new(groups);
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

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::Locality;

    use super::*;

    #[test]
    fn an_envoy_belongs_to_its_zone_where_that_has_a_state_and_else_to_its_gateway() {
        let text = "gateways: [{ name: east, node_cluster: e }, { name: west, node_cluster: w, listen: 127.0.0.1:10001 }]\n\
                    models: [{ name: m, pools: [p] }]\npools: [{ name: p }]\n";
        let config = crate::config::parse(text).unwrap();
        let zone: Zone = "eu/a".parse().unwrap();
        let groups = BTreeSet::from([zone_group("east", &zone)]);
        let group = |cluster: &str, place: Option<(&str, &str)>| {
            let locality = place.map(|(region, zone)| Locality {
                region: region.to_owned(),
                zone: zone.to_owned(),
                ..Locality::default()
            });
            let node = Node { cluster: cluster.to_owned(), locality, ..Node::default() };
            group_of(&config, &groups, &node, &[])
        };
        assert_eq!(group("e", Some(("eu", "a"))).as_deref(), Some(zone_group("east", &zone).as_str()));
        for place in [None, Some(("", "")), Some(("eu", "b")), Some(("eu/a", ""))] {
            assert_eq!(group("e", place).as_deref(), Some("east"), "{place:?}");
        }
        assert_eq!(group("w", Some(("eu", "a"))).as_deref(), Some("west"), "another gateway");
        assert_eq!(group("x", Some(("eu", "a"))), None);
    }

    #[test]
    fn the_smallest_share_above_its_number_says_which_canaries_an_envoy_belongs_to() {
        let canary = |name: &str, share: f64| {
            format!(
                "{{ name: {name}, pools: [{name}], rung: canary, canary: {{ by: proxies, share: {share} }} }}"
            )
        };
        let text = format!(
            "models: [{}, {}]\npools: [{{ name: few }}, {{ name: many }}]\n",
            canary("few", 0.2),
            canary("many", 0.6)
        );
        let config = crate::config::parse(&text).unwrap();
        let groups = BTreeSet::from([canary_group("edge", 20), canary_group("edge", 60)]);
        let group = |groups: &BTreeSet<String>, below: std::ops::Range<u32>| {
            let mut ids = (0..).map(|id| format!("edge-{id}"));
            let id = ids.find(|id| below.contains(&proxy_number(id))).unwrap();
            group_of(&config, groups, &Node { id, ..Node::default() }, &[]).unwrap().to_string()
        };
        assert_eq!(group(&groups, 0..20), canary_group("edge", 20));
        assert_eq!(group(&groups, 20..60), canary_group("edge", 60));
        assert_eq!(group(&groups, 60..100), "edge");
        assert_eq!(group(&BTreeSet::new(), 0..20), "edge", "not published yet");
        let many = BTreeSet::from([canary_group("edge", 60)]);
        assert_eq!(group(&many, 0..20), canary_group("edge", 60), "the smaller one is not published");
    }
}
