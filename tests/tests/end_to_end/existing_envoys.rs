//! Envoys that their users run already: `clairvoy bootstrap --merge` leaves them what is theirs.

use std::net::SocketAddr;
use std::path::PathBuf;

use clairvoy_tests::{SimulatedServer, SpeedClass};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Chat, Clairvoy, Envoy, Host, Load, Site, free_address, model_server, until, validate};

/// How Envoys are told of changes: the values of `--variant` that the discovery server speaks.
const VARIANTS: [&str; 2] = ["delta", "sotw"];

/// A model with two backends, a third one that can be registered, and the address of the user's own listener.
struct Place {
    servers: [SimulatedServer; 3],
    own: SocketAddr,
    clairvoy: Clairvoy,
    site: Site,
}

impl Place {
    async fn new() -> Self {
        let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
        let site = Site::new();
        site.configure(&format!(
            "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\", \"{}\"] }}\n",
            servers[0].address(),
            servers[1].address(),
        ));
        let clairvoy = site.serve().await;
        Self { servers, own: free_address(), clairvoy, site }
    }

    /// A bootstrap as the user has it.
    fn bootstrap(&self, clusters: Value, listeners: Value) -> Value {
        let admin = self.site.admin;
        json!({
            "admin": { "address": socket(admin) },
            "node": { "id": "own-envoy", "cluster": "own-fleet" },
            "static_resources": { "clusters": clusters, "listeners": listeners },
        })
    }

    /// The user's listener, with its routes.
    fn listener(&self, routes: Value) -> Value {
        json!([{
            "name": "own",
            "address": socket(self.own),
            "filter_chains": [{ "filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "own",
                    "route_config": { "name": "own", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
                    "http_filters": [{
                        "name": "envoy.filters.http.router",
                        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                    }],
                },
            }] }],
        }])
    }

    /// A cluster of the user's with one backend.
    fn cluster(&self, name: &str, backend: SocketAddr) -> Value {
        let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": socket(backend) } }] }]);
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "0.75s",
            "circuit_breakers": { "thresholds": [{ "max_requests": 777 }] },
            "load_assignment": { "cluster_name": name, "endpoints": endpoints },
        })
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.site.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Merges Clairvoy into a bootstrap, and returns the file, which Envoy accepts, and what was said.
    fn merge(&self, name: &str, bootstrap: &Value, arguments: &[&str]) -> (PathBuf, String) {
        let source = self.write(&format!("before-{name}"), bootstrap.to_string());
        let xds = self.site.xds.to_string();
        let mut all = vec!["bootstrap", "--merge", source.to_str().unwrap(), "--xds", &xds];
        all.extend(arguments);
        let output = tokio::task::block_in_place(|| self.site.run(&all));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{said}");
        let path = self.write(name, output.stdout);
        accepted(&path);
        (path, said)
    }

    /// The user's Envoy before Clairvoy: requests pass.
    async fn passes_before(&self, bootstrap: &Value) {
        let path = self.write("own.yaml", bootstrap.to_string());
        let _envoy = Envoy::launch_with(&self.site, &path).await;
        self.passes().await;
    }

    async fn passes(&self) {
        let chat = Chat::new(self.own, "chat", 3);
        until("the own listener answers", 30, async || chat.stream().await.map(drop)).await;
    }

    /// A backend that is registered gets requests, and one that drains gets none; then Clairvoy dies, and no one notices.
    async fn follows_clairvoy_and_outlives_it(self, envoy: &Envoy, cluster: &str, gateway: SocketAddr) {
        let [first, second, third] = self.servers.each_ref().map(SimulatedServer::address);
        let load = Load::start(Chat::new(gateway, "chat", 20), 10.0);
        load.more(5).await;
        for there in [first, second] {
            let serves = |host: Option<&Host>| host.is_some_and(|host| host.requests > 0);
            envoy.host_where("the configured backend serves", cluster, there, serves).await;
        }
        assert_eq!(self.clairvoy.register("a", third).await, StatusCode::CREATED);
        let serves = |host: Option<&Host>| host.is_some_and(|host| host.requests > 1);
        envoy.host_where("the newcomer serves", cluster, third, serves).await;
        assert_eq!(self.clairvoy.drain("a", first).await, StatusCode::ACCEPTED);
        let drains = |host: Option<&Host>| host.is_some_and(|host| host.health == "DRAINING");
        envoy.host_where("the first drains", cluster, first, drains).await;
        let proxy = self.clairvoy.in_sync().await;
        assert_eq!((proxy.node_id.as_str(), proxy.nacks), ("own-envoy", 0));

        self.clairvoy.kill();
        load.more(15).await;
        let before = envoy.hosts(cluster).await[&first].requests;
        load.more(5).await;
        assert_eq!(envoy.hosts(cluster).await[&first].requests, before, "it still drains");
        load.end().await;
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn accepted(path: &std::path::Path) {
    let output = tokio::task::block_in_place(|| validate(path));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_clusters_take_endpoints_only() {
    for variant in VARIANTS {
        let place = Place::new().await;
        let own = place.bootstrap(
            json!([place.cluster("gpu", place.servers[0].address())]),
            place.listener(json!([{ "match": { "prefix": "/" }, "route": { "cluster": "gpu" } }])),
        );
        place.passes_before(&own).await;

        let asked = ["--serve", "eds", "--cluster", "gpu=chat", "--variant", variant];
        let (path, said) = place.merge("eds.yaml", &own, &asked);
        for words in ["clusters[0] (gpu).load_assignment: removed", "--keep-lb", "clusters[1]: added"] {
            assert!(said.contains(words), "{words}: {said}");
        }
        let envoy = Envoy::launch_with(&place.site, &path).await;
        place.passes().await;
        let dump = envoy.admin("/config_dump?resource=static_clusters").await;
        let gpu = &dump["configs"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["cluster"]["name"] == "gpu")
            .unwrap()["cluster"];
        assert_eq!(gpu["circuit_breakers"]["thresholds"][0]["max_requests"], 777, "{gpu:#}");
        assert_eq!((&gpu["type"], &gpu["connect_timeout"]), (&json!("EDS"), &json!("0.750s")));
        let gateway = place.own;
        place.follows_clairvoy_and_outlives_it(&envoy, "gpu", gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_routes_name_clusters_of_clairvoy() {
    for variant in VARIANTS {
        let place = Place::new().await;
        let clusters = json!([place.cluster("own", place.servers[0].address())]);
        let all_to = |name: &str| json!({ "match": { "prefix": "/" }, "route": { "cluster": name } });
        let before = place.bootstrap(clusters.clone(), place.listener(json!([all_to("own")])));
        place.passes_before(&before).await;

        let by_header = json!({ "name": "x-to", "string_match": { "exact": "own" } });
        let own_route =
            json!({ "match": { "prefix": "/", "headers": [by_header] }, "route": { "cluster": "own" } });
        let own = place.bootstrap(clusters, place.listener(json!([own_route, all_to("chat")])));
        let (path, said) = place.merge("clusters.json", &own, &["--serve", "cds+eds", "--variant", variant]);
        assert!(said.contains("route_config.validate_clusters: set to false"), "{said}");
        let envoy = Envoy::launch_with(&place.site, &path).await;
        place.passes().await;
        let own_cluster =
            Chat::new(place.own, "chat", 1).request().header("x-to", "own").send().await.unwrap();
        assert_eq!(own_cluster.status(), StatusCode::OK);
        assert_eq!(envoy.hosts("own").await[&place.servers[0].address()].requests, 1);

        // What a merge gives to an own cluster is the policy of the clusters that Clairvoy makes.
        let (path, _) = place.merge("policy.json", &before, &["--serve", "eds", "--cluster", "own=chat"]);
        let merged: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let dump = envoy.admin("/config_dump?resource=dynamic_active_clusters").await;
        let chat = &dump["configs"][0]["cluster"];
        assert!(["chat", "!static/chat"].contains(&chat["name"].as_str().unwrap()), "{chat:#}");
        let policy = &merged["static_resources"]["clusters"][0]["load_balancing_policy"];
        // Envoy writes whole numbers as such.
        let written = policy.to_string().replace("2.0", "2");
        assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), chat["load_balancing_policy"]);

        let gateway = place.own;
        place.follows_clairvoy_and_outlives_it(&envoy, "chat", gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_with_nothing_of_its_own_takes_all() {
    for variant in VARIANTS {
        let place = Place::new().await;
        let own = place.bootstrap(json!([]), json!([]));
        let (path, _) = place.merge("all.yaml", &own, &["--serve", "all", "--variant", variant]);
        let envoy = Envoy::launch_with(&place.site, &path).await;
        envoy.wait_until_routing().await;
        let gateway = place.site.gateway;
        place.follows_clairvoy_and_outlives_it(&envoy, "chat", gateway).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_accepts_what_is_merged_and_faults_name_their_place() {
    let site = Site::new();
    site.configure("models:\n  - { name: chat, pools: [a] }\npools:\n  - { name: a }\n");
    let config = site.config_file();
    let merge = |text: &str, arguments: &[&str]| {
        let source = site.path().join("own.yaml");
        std::fs::write(&source, text).unwrap();
        let source = source.to_str().unwrap().to_owned();
        let all =
            [&["bootstrap", "--merge", &source, "--config", config.to_str().unwrap()], arguments].concat();
        let output = tokio::task::block_in_place(|| site.run(&all));
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let own = |more: &str| {
        format!(
            "static_resources:\n  clusters:\n  - &c\n    name: chat\n    type: STRICT_DNS\n    {more}\n    \
             common_lb_config: {{ zone_aware_lb_config: {{ min_cluster_size: 3 }} }}\n    load_assignment:\n      \
             cluster_name: chat\n      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: \
             {{ address: gpu.example, port_value: 0x50 }} }} }} }}] }}]\n"
        )
    };
    let other_ads = "  - name: other\n    type: STATIC\n    http2_protocol_options: {}\n    load_assignment: { cluster_name: other }\n\
        dynamic_resources:\n  ads_config: { api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: other } }] }\n";
    let camel = "staticResources:\n  clusters:\n  - { name: chat, type: EDS, metadata: { filterMetadata: { own: { version: 1.10, on: yes } } } }\n";
    for (text, arguments) in [
        (own("lb_policy: MAGLEV"), &["--serve", "eds"][..]),
        (own("lb_subset_config: { subset_selectors: [{ keys: [a] }] }"), &["--serve", "eds"]),
        (own("lb_policy: RANDOM"), &["--serve", "eds", "--keep-lb", "--variant", "sotw"]),
        (own("lb_policy: RANDOM") + other_ads, &["--serve", "eds"]),
        (camel.to_owned(), &["--serve", "eds", "--region", "r", "--zone", "1e3"]),
        (own(""), &["--serve", "cds+eds"]),
        (String::new(), &["--serve", "all", "--admin", "127.0.0.1:1", "--xds", "clairvoy.example:18000"]),
    ] {
        let (good, out, said) = merge(&text, arguments);
        assert!(good, "{arguments:?}: {said}");
        let path = site.path().join("merged.yaml");
        std::fs::write(&path, &out).unwrap();
        accepted(&path);
    }
    for (text, arguments, words) in [
        ("static_resources: 1", &["--serve", "eds"][..], "static_resources is a number"),
        ("node: { id: a }", &["--serve", "all", "--node-id", "b"], "node.id is \"a\""),
        ("a: [", &["--serve", "all"], "not valid YAML"),
        ("", &["--serve", "eds"], "--cluster NAME=MODEL"),
        ("", &[], "--serve"),
        ("", &["--serve", "all", "--cluster", "=x"], "NAME=MODEL"),
    ] {
        let (good, out, said) = merge(text, arguments);
        assert!(!good && out.is_empty() && said.contains(words), "{arguments:?}: {said}");
    }
}
