//! Names of what is not there.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::http_uri::HttpUpstreamType;
use envoy_types::pb::envoy::config::core::v3::{
    ExtensionConfigSource, GrpcService, HttpUri, TransportSocket, transport_socket,
};
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener};
use envoy_types::pb::envoy::config::ratelimit::v3::RateLimitServiceConfig;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::RequestMirrorPolicy;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, Vhds, VirtualHost};
use envoy_types::pb::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, tracing};
use envoy_types::pb::envoy::extensions::access_loggers::grpc::v3::{
    CommonGrpcAccessLogConfig, HttpGrpcAccessLogConfig, TcpGrpcAccessLogConfig,
};
use envoy_types::pb::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{ExtAuthz, HttpService, ext_authz};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ExternalProcessor;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtProvider, RemoteJwks, jwt_provider,
};
use envoy_types::pb::envoy::extensions::filters::http::oauth2::v3::{OAuth2, OAuth2Config};
use envoy_types::pb::envoy::extensions::filters::http::rate_limit_quota::v3::RateLimitQuotaFilterConfig;
use envoy_types::pb::envoy::extensions::filters::http::ratelimit::v3::RateLimit;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, Tracing,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, ScopedRds, ScopedRoutes, http_filter, scoped_routes,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, Secret, UpstreamTlsContext, common_tls_context,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::xds::core::v3::TypedExtensionConfig as MatchAction;
use envoy_types::pb::xds::r#type::matcher::v3::{Matcher, matcher};

use super::*;
use crate::fixtures::ads;

const UNKNOWN: &str = "\"c\": add it, or declare it external if clients have it from elsewhere";

fn grpc() -> Option<GrpcService> {
    let target = EnvoyGrpc { cluster_name: "c".into(), ..Default::default() };
    Some(GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(target)), ..Default::default() })
}

fn http() -> Option<HttpUri> {
    Some(HttpUri {
        uri: "http://c/".into(),
        http_upstream_type: Some(HttpUpstreamType::Cluster("c".into())),
        ..Default::default()
    })
}

fn with_network_filter(name: &str, config: Any) -> Listener {
    let filter = Filter { name: "filter".into(), config_type: Some(ConfigType::TypedConfig(config)) };
    Listener {
        name: name.into(),
        filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }],
        ..Default::default()
    }
}

pub(super) fn tcp_listener(clusters: tcp_proxy::ClusterSpecifier) -> Listener {
    let proxy = TcpProxy { cluster_specifier: Some(clusters), ..Default::default() };
    with_network_filter("tcp", pack_any(proxy))
}

fn with_manager(manager: HttpConnectionManager) -> Listener {
    with_network_filter("l", pack_any(manager))
}

fn with_http_filter(config: Any) -> Listener {
    let filter = HttpFilter {
        name: "filter".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    };
    with_manager(HttpConnectionManager { http_filters: vec![filter], ..Default::default() })
}

fn logger(config: Any) -> AccessLog {
    AccessLog { config_type: Some(access_log::ConfigType::TypedConfig(config)), ..Default::default() }
}

fn with_tracer(config: Any) -> Listener {
    let provider = tracing::Http {
        name: "tracer".into(),
        config_type: Some(tracing::http::ConfigType::TypedConfig(config)),
    };
    let tracing = Some(Tracing { provider: Some(provider), ..Default::default() });
    with_manager(HttpConnectionManager { tracing, ..Default::default() })
}

/// The listener needs cluster `c`, waits for it, and is fine once it exists.
fn assert_needs_cluster(what: &str, listener: Listener) {
    let refused = faults(|builder| {
        builder.listener(listener.clone());
    });
    assert_eq!(refused, [format!("LDS {:?} names unknown cluster {UNKNOWN}", listener.name)], "{what}");
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster("c", 1)).assignment(assignment("c", 80)).listener(listener.clone());
    let snapshot = builder.build().unwrap();
    let clusters = &snapshot.table(ResourceType::Listener).get(&listener.name).unwrap().clusters;
    assert_eq!(clusters[..], ["c".into()], "{what}");
}

#[test]
fn f8_filters_name_clusters_that_exist() {
    let jwks = RemoteJwks { http_uri: http(), ..Default::default() };
    let provider = JwtProvider {
        jwks_source_specifier: Some(jwt_provider::JwksSourceSpecifier::RemoteJwks(jwks)),
        ..Default::default()
    };
    let http_service = HttpService { server_uri: http(), ..Default::default() };
    let rate_limit_service = Some(RateLimitServiceConfig { grpc_service: grpc(), ..Default::default() });
    let oauth2 = OAuth2Config { token_endpoint: http(), ..Default::default() };
    for (what, config) in [
        (
            "ext_authz by gRPC",
            pack_any(ExtAuthz {
                services: grpc().map(ext_authz::Services::GrpcService),
                ..Default::default()
            }),
        ),
        (
            "ext_authz by HTTP",
            pack_any(ExtAuthz {
                services: Some(ext_authz::Services::HttpService(http_service)),
                ..Default::default()
            }),
        ),
        ("ext_proc", pack_any(ExternalProcessor { grpc_service: grpc(), ..Default::default() })),
        ("ratelimit", pack_any(RateLimit { rate_limit_service, ..Default::default() })),
        (
            "rate_limit_quota",
            pack_any(RateLimitQuotaFilterConfig { rlqs_server: grpc(), ..Default::default() }),
        ),
        (
            "jwt_authn",
            pack_any(JwtAuthentication {
                providers: [("p".to_owned(), provider)].into(),
                ..Default::default()
            }),
        ),
        ("oauth2", pack_any(OAuth2 { config: Some(oauth2) })),
    ] {
        assert_needs_cluster(what, with_http_filter(config));
    }
    assert_needs_cluster("tcp_proxy", tcp_listener(tcp_proxy::ClusterSpecifier::Cluster("c".into())));
}

#[test]
fn f8_loggers_and_tracers_name_clusters_that_exist() {
    let common = || Some(CommonGrpcAccessLogConfig { grpc_service: grpc(), ..Default::default() });
    for config in [
        pack_any(HttpGrpcAccessLogConfig { common_config: common(), ..Default::default() }),
        pack_any(TcpGrpcAccessLogConfig { common_config: common() }),
        pack_any(OpenTelemetryAccessLogConfig { grpc_service: grpc(), ..Default::default() }),
    ] {
        let logs = || vec![logger(config.clone())];
        let of_requests = HttpConnectionManager { access_log: logs(), ..Default::default() };
        assert_needs_cluster(&config.type_url, with_manager(of_requests));
        let of_listener = Listener { name: "l".into(), access_log: logs(), ..Default::default() };
        assert_needs_cluster(&config.type_url, of_listener);
    }
    for config in [
        pack_any(OpenTelemetryConfig { grpc_service: grpc(), ..Default::default() }),
        pack_any(ZipkinConfig { collector_cluster: "c".into(), ..Default::default() }),
    ] {
        assert_needs_cluster(&config.type_url.clone(), with_tracer(config));
    }
}

fn assert_routes_need_cluster(what: &str, config: RouteConfiguration) {
    let refused = faults(|builder| {
        builder.external_cluster("a").route_configuration(config.clone());
    });
    assert_eq!(refused, [format!("RDS \"r\" names unknown cluster {UNKNOWN}")], "{what}");
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(config)),
        ..Default::default()
    };
    let refused = faults(|builder| {
        builder.external_cluster("a").listener(with_manager(manager));
    });
    assert_eq!(refused, [format!("LDS \"l\" names unknown cluster {UNKNOWN}")], "{what}");
}

#[test]
fn f8_routes_name_clusters_that_exist() {
    assert_routes_need_cluster("route", fixtures::routes("r", ["a", "c"]));

    let mirrors = vec![RequestMirrorPolicy { cluster: "c".into(), ..Default::default() }];
    let config = || fixtures::routes("r", ["a"]);
    let of_all = RouteConfiguration { request_mirror_policies: mirrors.clone(), ..config() };
    assert_routes_need_cluster("mirror of all hosts", of_all);
    let mut of_host = config();
    of_host.virtual_hosts[0].request_mirror_policies = mirrors.clone();
    assert_routes_need_cluster("mirror of a host", of_host);
    let mut of_route = config();
    if let Some(Action::Route(action)) = &mut of_route.virtual_hosts[0].routes[0].action {
        action.request_mirror_policies = mirrors;
    }
    assert_routes_need_cluster("mirror of a route", of_route);
}

#[test]
fn f8_trees_of_routes_name_clusters_that_exist() {
    let on_match = |cluster: &str| {
        let [host] = <[_; 1]>::try_from(fixtures::routes("r", [cluster]).virtual_hosts).unwrap();
        let action =
            MatchAction { name: "route".into(), typed_config: Some(pack_any(host.routes[0].clone())) };
        matcher::OnMatch { on_match: Some(matcher::on_match::OnMatch::Action(action)), ..Default::default() }
    };
    let map = matcher::matcher_tree::MatchMap { map: [("model".to_owned(), on_match("c"))].into() };
    let tree = matcher::MatcherTree {
        tree_type: Some(matcher::matcher_tree::TreeType::ExactMatchMap(map)),
        ..Default::default()
    };
    let matcher = Matcher {
        on_no_match: Some(Box::new(on_match("a"))),
        matcher_type: Some(matcher::MatcherType::MatcherTree(tree)),
    };
    let host = VirtualHost { name: "h".into(), matcher: Some(matcher), ..Default::default() };
    let config = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..Default::default() };
    assert_routes_need_cluster("matcher", config);
}

fn secret_config(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.into(), sds_config: Some(ads()) }
}

fn tls(config: Any) -> Option<TransportSocket> {
    Some(TransportSocket {
        name: "tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(config)),
    })
}

/// Names the secrets `certificate` and `ca`.
fn tls_context() -> Option<CommonTlsContext> {
    use common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
    let combined = CombinedCertificateValidationContext {
        validation_context_sds_secret_config: Some(secret_config("ca")),
        ..Default::default()
    };
    Some(CommonTlsContext {
        tls_certificate_sds_secret_configs: vec![secret_config("certificate")],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(combined)),
        ..Default::default()
    })
}

#[test]
fn f8_secrets_that_this_server_is_asked_for_exist() {
    let upstream =
        tls(pack_any(UpstreamTlsContext { common_tls_context: tls_context(), ..Default::default() }));
    let plain = Cluster { name: "c".into(), ..Default::default() };
    let of_cluster = Cluster { transport_socket: upstream.clone(), ..plain.clone() };
    let of_match = TransportSocketMatch { transport_socket: upstream, ..Default::default() };
    let of_match = Cluster { transport_socket_matches: vec![of_match], ..plain };
    let downstream =
        tls(pack_any(DownstreamTlsContext { common_tls_context: tls_context(), ..Default::default() }));
    let chain = FilterChain { transport_socket: downstream, ..Default::default() };
    let listener = Listener { name: "c".into(), filter_chains: vec![chain], ..Default::default() };

    let text = "add it, or declare it external if another server has it";
    let check = |resource_type: &str, add: &dyn Fn(&mut SnapshotBuilder)| {
        let expected = ["ca", "certificate"]
            .map(|secret| format!("{resource_type} \"c\" names unknown secret {secret:?}: {text}"));
        assert_eq!(faults(|builder| add(builder)), expected);
        let fine = faults(|builder| {
            add(builder);
            builder.external_secret("ca");
            builder.secret(Secret { name: "certificate".into(), ..Default::default() });
        });
        assert!(fine.is_empty(), "{fine:?}");
    };
    check("CDS", &|builder| {
        builder.cluster(of_cluster.clone());
    });
    check("CDS", &|builder| {
        builder.cluster(of_match.clone());
    });
    check("LDS", &|builder| {
        builder.listener(listener.clone());
    });

    let mut elsewhere = tls_context().unwrap();
    elsewhere.tls_certificate_sds_secret_configs[0].sds_config = None;
    elsewhere.validation_context_type = None;
    let context = UpstreamTlsContext { common_tls_context: Some(elsewhere), ..Default::default() };
    let cluster =
        Cluster { name: "c".into(), transport_socket: tls(pack_any(context)), ..Default::default() };
    assert!(
        faults(|builder| {
            builder.cluster(cluster);
        })
        .is_empty()
    );
}

#[test]
fn f8_types_that_are_not_served_are_not_asked_for() {
    let text = "which it does not serve, so that clients would wait for ever: write it into the resource, or \
                name another source";
    let vhds = Some(Vhds { config_source: Some(ads()) });
    let config = RouteConfiguration { vhds, ..fixtures::routes("r", []) };
    assert_eq!(
        faults(|builder| {
            builder.route_configuration(config);
        }),
        [format!("RDS \"r\" asks this server for virtual hosts (VHDS), {text}")]
    );

    let scoped = ScopedRds { scoped_rds_config_source: Some(ads()), ..Default::default() };
    let scoped = ScopedRoutes {
        config_specifier: Some(scoped_routes::ConfigSpecifier::ScopedRds(scoped)),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::ScopedRoutes(scoped)),
        ..Default::default()
    };
    assert_eq!(
        faults(|builder| {
            builder.listener(with_manager(manager));
        }),
        [format!("LDS \"l\" asks this server for scoped routes (SRDS), {text}")]
    );

    let source = ExtensionConfigSource {
        config_source: Some(ads()),
        type_urls: vec!["example/Lua".into()],
        ..Default::default()
    };
    let filter = HttpFilter {
        name: "filter".into(),
        config_type: Some(http_filter::ConfigType::ConfigDiscovery(source)),
        ..Default::default()
    };
    let manager = HttpConnectionManager { http_filters: vec![filter], ..Default::default() };
    assert_eq!(
        faults(|builder| {
            builder.listener(with_manager(manager));
        }),
        [format!("LDS \"l\" asks this server for extension configuration (ECDS) of example/Lua, {text}")]
    );
}

#[test]
fn f8_packed_messages_can_be_read() {
    let broken = |bytes: &[u8]| Any { value: bytes.to_vec(), ..pack_any(HttpConnectionManager::default()) };
    for bytes in [&[0xff; 12][..], &[0x22, 9, 1], &[0x18, 1]] {
        let faults = faults(|builder| {
            builder.listener(with_network_filter("l", broken(bytes)));
        });
        let [fault] = &faults[..] else { panic!("{faults:?}") };
        assert!(fault.starts_with("LDS \"l\": cannot decode type.googleapis.com/"), "{fault}");
    }
}
