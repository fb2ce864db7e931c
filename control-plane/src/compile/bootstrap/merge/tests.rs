use proptest::prelude::*;

use super::super::read_tests::tree;
use super::*;

fn options(serve: Serve) -> MergeOptions {
    MergeOptions {
        serve,
        variant: None,
        node: NodeOptions::default(),
        default_node_id: "host".to_owned(),
        default_node_cluster: "edge".to_owned(),
        xds: None,
        default_xds: XdsAddress { host: "127.0.0.1".to_owned(), port: 18000 },
        tls: None,
        admin: None,
        token: None,
        clusters: Vec::new(),
        models: None,
        keep_lb: false,
        force: false,
    }
}

fn cluster(name: &str, model: Option<&str>) -> ClusterChoice {
    ClusterChoice { name: name.to_owned(), model: model.map(str::to_owned) }
}

fn merged(text: &str, options: &MergeOptions) -> (Tree, Merged) {
    let merged = merge(text, Format::Yaml, options).unwrap();
    (read(&merged.text, Format::Yaml).unwrap(), merged)
}

fn faults(text: &str, options: &MergeOptions) -> String {
    merge(text, Format::Yaml, options).unwrap_err().to_string()
}

fn said(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

const OWN: &str = r#"
node: { id: own-1, metadata: { version: 1.10 } }
admin: { address: { socket_address: { address: 127.0.0.1, port_value: 9901 } } }
static_resources:
  clusters:
  - name: web
    load_assignment: { cluster_name: web, endpoints: [] }
  - name: chat
    type: STRICT_DNS
    lb_policy: RING_HASH
    ring_hash_lb_config: { minimum_ring_size: 64 }
    common_lb_config: { healthy_panic_threshold: { value: 10 }, locality_weighted_lb_config: {} }
    circuit_breakers: { thresholds: [{ max_connections: 7 }] }
    load_assignment:
      cluster_name: chat
      endpoints:
      - lb_endpoints:
        - endpoint: { hostname: a, address: { socket_address: { address: gpu.example, port_value: 80 } } }
"#;

#[test]
fn load_reports_come_to_clairvoy_unless_they_go_elsewhere_or_cannot() {
    const STATS: [&str; 4] = ["cluster_manager", "load_stats_config", "grpc_services", "0"];
    let leads_to = |tree: &Tree| {
        let service = tree.at(&STATS)?.at(&["envoy_grpc", "cluster_name"])?.as_text()?;
        Some(service.to_owned())
    };
    let mut options = options(Serve::All);
    let (tree, first) = merged(OWN, &options);
    assert_eq!(leads_to(&tree).as_deref(), Some("clairvoy_xds"));
    assert!(said(&first.changes, "cluster_manager.load_stats_config: added"));
    options.token = Some("secret".to_owned());
    let (tree, second) = merged(&first.text, &options);
    let shown = tree.at(&STATS).unwrap().at(&["initial_metadata", "0", "value"]);
    assert_eq!(shown, Some(&"Bearer secret".into()));
    assert!(said(&second.changes, "cluster_manager.load_stats_config: set to the token"));

    let elsewhere = "cluster_manager: { load_stats_config: { api_type: GRPC, grpc_services: [{ envoy_grpc: { cluster_name: own } }] } }";
    let (tree, merged_elsewhere) = merged(&format!("{OWN}\n{elsewhere}\n"), &options);
    assert_eq!(leads_to(&tree).as_deref(), Some("own"));
    assert!(said(&merged_elsewhere.warnings, "load_stats_config leads to another server"));

    let counting = OWN
        .replace("  - name: web\n", "  - name: web\n    track_cluster_stats: { per_endpoint_stats: true }\n");
    let (tree, merged_counting) = merged(&counting, &options);
    assert_eq!(leads_to(&tree), None);
    assert!(said(&merged_counting.warnings, "web.track_cluster_stats.per_endpoint_stats"));
}

#[test]
fn the_runtime_layer_comes_before_what_an_operator_sets_by_hand() {
    const LAYERS: [&str; 2] = ["layered_runtime", "layers"];
    let names = |tree: &Tree| {
        let layers = tree.at(&LAYERS).unwrap().as_list().unwrap();
        let name = |layer: &Tree| layer.at(&["name"]).unwrap().as_text().unwrap().to_owned();
        layers.iter().map(name).collect::<Vec<_>>()
    };
    let options = options(Serve::All);
    let (tree, first) = merged(OWN, &options);
    assert_eq!(names(&tree), ["clairvoy", "admin"]);
    let rtds = tree.at(&LAYERS).unwrap().at(&["0", "rtds_layer"]).unwrap();
    assert_eq!(rtds.at(&["name"]), Some(&"clairvoy".into()));
    assert!(rtds.at(&["rtds_config", "ads"]).is_some());
    assert!(said(&first.changes, "layered_runtime.layers[0]: added, clairvoy"));

    let own = "layered_runtime: { layers: [{ name: base, static_layer: { a: 1 } }, { name: hand, admin_layer: {} }] }";
    let (tree, _) = merged(&format!("{OWN}\n{own}\n"), &options);
    assert_eq!(names(&tree), ["base", "clairvoy", "hand"]);
    let taken = "layered_runtime: { layers: [{ name: clairvoy, static_layer: { a: 1 } }] }";
    let (tree, other) = merged(&format!("{OWN}\n{taken}\n"), &options);
    assert_eq!(names(&tree), ["clairvoy"]);
    assert!(said(
        &other.warnings,
        "layered_runtime.layers[0] is named clairvoy and does not come from Clairvoy"
    ));

    let mut endpoints = options;
    endpoints.serve = Serve::Eds;
    endpoints.clusters = vec![cluster("chat", None)];
    let (tree, own_routes) = merged(OWN, &endpoints);
    assert_eq!(names(&tree), ["clairvoy", "admin"]);
    assert!(said(&own_routes.warnings, "keep the last shares when Clairvoy is gone"));
}

#[test]
fn a_chosen_cluster_takes_endpoints_and_keeps_the_rest() {
    let mut options = options(Serve::Eds);
    options.clusters = vec![cluster("chat", Some("llama"))];
    let (tree, merged) = merged(OWN, &options);
    let chat = tree.at(&["static_resources", "clusters", "1"]).unwrap();
    assert_eq!(chat.at(&["type"]), Some(&"EDS".into()));
    assert_eq!(chat.at(&["eds_cluster_config", "service_name"]), Some(&"llama".into()));
    assert!(chat.at(&["eds_cluster_config", "eds_config", "ads"]).is_some());
    for gone in ["load_assignment", "lb_policy", "ring_hash_lb_config"] {
        assert_eq!(chat.at(&[gone]), None, "{gone}");
    }
    assert_eq!(chat.at(&["common_lb_config", "locality_weighted_lb_config"]), None);
    let before = read(OWN, Format::Yaml).unwrap();
    for kept in [
        &["static_resources", "clusters", "0"][..],
        &["static_resources", "clusters", "1", "circuit_breakers"],
        &["static_resources", "clusters", "1", "common_lb_config", "healthy_panic_threshold"],
        &["node", "id"],
        &["node", "metadata"],
        &["admin"],
    ] {
        assert_eq!(tree.at(kept), before.at(kept), "{kept:?}");
    }
    assert_eq!(tree.at(&["static_resources", "clusters", "2", "name"]), Some(&"clairvoy_xds".into()));
    assert!(tree.at(&["dynamic_resources", "cds_config"]).is_none());
    assert!(said(
        &merged.changes,
        "static_resources.clusters[1] (chat).load_assignment: removed, 1 endpoints"
    ));
    assert!(said(&merged.changes, "node.cluster: set to \"edge\""));
    for words in ["gpu.example", "hostname", "RING_HASH: requests are no longer kept"] {
        assert!(said(&merged.warnings, words), "{words}: {:#?}", merged.warnings);
    }
}

#[test]
fn clusters_are_found_by_the_models_that_are_known() {
    let mut options = options(Serve::Eds);
    let found = faults(OWN, &options);
    assert!(found.contains("--cluster NAME=MODEL") && found.contains("web, chat"), "{found}");
    options.models = Some(["chat".to_owned()].into());
    let (tree, _) = merged(OWN, &options);
    assert_eq!(tree.at(&["static_resources", "clusters", "1", "eds_cluster_config", "service_name"]), None);
    assert_eq!(tree.at(&["static_resources", "clusters", "0", "type"]), None);
    options.clusters = vec![cluster("web", None)];
    let found = faults(OWN, &options);
    assert!(found.contains("no model \"web\"") && found.contains("(chat)"), "{found}");
    options.clusters = vec![cluster("wbe", None)];
    assert!(faults(OWN, &options).contains("--cluster wbe: 0 of"));
}

#[test]
fn both_spellings_and_numbers_of_enums_are_understood() {
    let text = r#"{"node": {"id": "a", "cluster": "b"}, "staticResources": {"clusters": [
        {"name": "chat", "type": 1, "lbPolicy": 5, "loadAssignment": {"clusterName": "chat"},
         "connectTimeout": "1s"}]}}"#;
    let mut options = options(Serve::Eds);
    options.clusters = vec![cluster("chat", None)];
    let merged = merge(text, Format::Json, &options).unwrap();
    let tree = read(&merged.text, Format::Json).unwrap();
    let chat = tree.at(&["static_resources", "clusters", "0"]).unwrap();
    assert_eq!((chat.at(&["type"]), chat.at(&["load_assignment"])), (Some(&"EDS".into()), None));
    assert_eq!((chat.at(&["lb_policy"]), chat.at(&["connect_timeout"])), (None, Some(&"1s".into())));
    assert_eq!(merged.text.matches("clusters\":").count(), 1, "{}", merged.text);
    assert!(said(&merged.warnings, "was MAGLEV"), "{:?}", merged.warnings);
}

#[test]
fn another_ads_server_keeps_its_stream() {
    let text = format!(
        "{OWN}\ndynamic_resources:\n  ads_config: {{ api_type: GRPC, grpc_services: [{{ envoy_grpc: {{ cluster_name: other }} }}] }}\n  cds_config: {{ ads: {{}} }}\n"
    );
    let mut options = options(Serve::Eds);
    options.clusters = vec![cluster("chat", None)];
    options.variant = Some(Variant::Sotw);
    let (tree, _) = merged(&text, &options);
    let eds = ["static_resources", "clusters", "1", "eds_cluster_config", "eds_config", "api_config_source"];
    assert_eq!(tree.at(&eds).unwrap().at(&["api_type"]), Some(&"GRPC".into()));
    assert_eq!(
        tree.at(&["dynamic_resources"]),
        read(&text, Format::Yaml).unwrap().at(&["dynamic_resources"])
    );
    options.serve = Serve::CdsEds;
    assert!(faults(&text, &options).contains("dynamic_resources.ads_config leads to another server"));
}

#[test]
fn choices_of_the_user_are_replaced_only_by_force() {
    let text =
        format!("{OWN}dynamic_resources: {{ cds_config: {{ path_config_source: {{ path: /x/y }} }} }}\n");
    let mut options = options(Serve::All);
    options.node.id = Some("other".to_owned());
    options.admin = Some("127.0.0.1:1".parse().unwrap());
    let found = faults(&text, &options);
    for words in
        ["node.id is \"own-1\"", "admin.address is 127.0.0.1:9901", "dynamic_resources.cds_config leads"]
    {
        assert!(found.contains(words), "{words}: {found}");
    }
    assert_eq!(found.matches("--force").count(), 3, "{found}");
    options.force = true;
    let (tree, found) = merged(&text, &options);
    assert_eq!(tree.at(&["node", "id"]), Some(&"other".into()));
    assert!(tree.at(&["dynamic_resources", "cds_config", "ads"]).is_some());
    assert!(said(&found.changes, "set to \"other\", was \"own-1\""));

    let first = merged_text(&text, &options);
    options.force = false;
    options.xds = Some(XdsAddress { host: "10.0.0.1".to_owned(), port: 5 });
    options.variant = Some(Variant::Sotw);
    options.token = Some("secret".to_owned());
    let found = faults(&first, &options);
    assert!(found.contains("leads to 127.0.0.1:18000, and --xds says 10.0.0.1:5"), "{found}");
    assert!(found.contains("ads_config.api_type is \"DELTA_GRPC\", and --variant sotw"), "{found}");
    options.xds = None;
    options.variant = None;
    let (tree, found) = merged(&first, &options);
    let metadata =
        ["dynamic_resources", "ads_config", "grpc_services", "0", "initial_metadata", "0", "value"];
    assert_eq!(tree.at(&metadata), Some(&"Bearer secret".into()));
    assert!(!said(&found.changes, "secret"));
}

#[test]
fn tls_is_merged_kept_and_replaced_only_by_force() {
    let mut options = options(Serve::Eds);
    options.clusters = vec![cluster("chat", None)];
    options.xds = Some(XdsAddress { host: "clairvoy.example".to_owned(), port: 5 });
    options.tls = Some(XdsTls {
        ca: "/ca.pem".to_owned(),
        san: None,
        client: Some(("/c.pem".to_owned(), "/k.pem".to_owned())),
    });
    let of_clairvoy = |tree: &Tree| {
        let clusters = tree.at(&["static_resources", "clusters"]).and_then(Tree::as_list).unwrap().to_vec();
        clusters
            .into_iter()
            .find(|cluster| cluster.as_map().unwrap().text("name") == Some("clairvoy_xds"))
            .unwrap()
    };
    let context = |tree: &Tree| of_clairvoy(tree).at(&["transport_socket", "typed_config"]).unwrap().clone();
    let (tree, _) = merged(OWN, &options);
    assert_eq!(context(&tree).at(&["sni"]), Some(&"clairvoy.example".into()));
    let san = ["common_tls_context", "validation_context", "match_typed_subject_alt_names", "0"];
    assert_eq!(context(&tree).at(&san).unwrap().at(&["san_type"]), Some(&"DNS".into()));

    let first = merged_text(OWN, &options);
    assert_eq!(merged_text(&first, &options), first, "merged twice");
    // Another address alone leaves TLS as it is.
    options.tls = None;
    options.force = true;
    options.xds = Some(XdsAddress { host: "10.0.0.1".to_owned(), port: 5 });
    let (tree, _) = merged(&first, &options);
    assert_eq!(context(&tree).at(&["sni"]), Some(&"clairvoy.example".into()));

    options.force = false;
    options.xds = None;
    options.tls =
        Some(XdsTls { ca: "/ca.pem".to_owned(), san: Some("spiffe://e/c".to_owned()), client: None });
    assert!(faults(&first, &options).contains("leave --tls-ca out"));
    options.force = true;
    let (tree, _) = merged(&first, &options);
    assert_eq!(context(&tree).at(&san).unwrap().at(&["san_type"]), Some(&"URI".into()));
    assert_eq!(context(&tree).at(&["sni"]), Some(&"clairvoy.example".into()));
    assert_eq!(context(&tree).at(&["common_tls_context", "tls_certificates"]), None);
}

fn merged_text(text: &str, options: &MergeOptions) -> String {
    merge(text, Format::Yaml, options).unwrap().text
}

#[test]
fn a_policy_may_stay_and_then_its_effect_is_told() {
    let mut options = options(Serve::Eds);
    options.keep_lb = true;
    options.clusters = vec![cluster("chat", None), cluster("web", None)];
    let (tree, merged) = merged(OWN, &options);
    let before = read(OWN, Format::Yaml).unwrap();
    for field in ["lb_policy", "ring_hash_lb_config", "common_lb_config", "load_balancing_policy"] {
        let place = ["static_resources", "clusters", "1", field];
        assert_eq!(tree.at(&place), before.at(&place));
    }
    assert!(said(
        &merged.warnings,
        "clusters[0] (web): its policy (ROUND_ROBIN) does not look at the weights"
    ));
    assert!(!said(&merged.warnings, "(chat): its policy"));
}

#[test]
fn only_lists_of_backends_can_be_turned() {
    let text = r#"
static_resources:
  clusters:
  - { name: a, type: ORIGINAL_DST }
  - { name: b, cluster_type: { name: envoy.clusters.aggregate } }
  - { name: c, cluster_type: { name: envoy.clusters.dns } }
"#;
    let mut options = options(Serve::Eds);
    options.clusters = ["a", "b"].map(|name| cluster(name, None)).to_vec();
    let found = faults(text, &options);
    assert!(found.contains("ORIGINAL_DST") && found.contains("envoy.clusters.aggregate"), "{found}");
    options.clusters = vec![cluster("c", None)];
    let (tree, _) = merged(text, &options);
    let c = tree.at(&["static_resources", "clusters", "2"]).unwrap();
    assert_eq!((c.at(&["type"]), c.at(&["cluster_type"])), (Some(&"EDS".into()), None));
}

#[test]
fn static_routes_may_name_clusters_that_are_to_come() {
    let listener = |extra: &str| {
        format!(
            "static_resources:\n  clusters: [{{ name: own }}]\n  listeners:\n  - filter_chains:\n    - filters:\n      \
             - typed_config:\n          route_config:\n            virtual_hosts:\n            - routes:\n              \
             - {{ route: {{ cluster: own }} }}\n              \
             - {{ route: {{ weighted_clusters: {{ clusters: [{{ name: chat, weight: 1 }}] }} }} }}\n{extra}"
        )
    };
    let place = ["static_resources", "listeners", "0", "filter_chains", "0", "filters", "0", "typed_config"];
    let (tree, found) = merged(&listener(""), &options(Serve::CdsEds));
    let routes = tree.at(&place).unwrap().at(&["route_config", "validate_clusters"]);
    assert_eq!(routes, Some(&Tree::Bool(false)));
    assert!(said(&found.changes, "filter_chains[0].filters[0].typed_config.route_config.validate_clusters"));
    assert!(said(&found.changes, "(chat)"));
    let explicit = listener("            validate_clusters: true\n");
    assert!(faults(&explicit, &options(Serve::All)).contains("validate_clusters is true"));
}

#[test]
fn odd_shapes_are_faults_with_their_place() {
    for (text, words) in [
        ("[]", "the file holds a list"),
        ("static_resources: 5", "static_resources is a number, and has to be a map"),
        ("static_resources: { clusters: {} }", "static_resources.clusters is a map, and has to be a list"),
        ("static_resources: { clusters: [x] }", "static_resources.clusters[0] is text"),
        ("node: []", "node is a list"),
        ("dynamic_resources: x", "dynamic_resources is text"),
    ] {
        let found = faults(text, &options(Serve::CdsEds));
        assert!(found.contains(words), "{text}: {found}");
    }
}

/// A bootstrap with random values in places that no merge touches.
fn bootstrap() -> impl Strategy<Value = Map> {
    let kind = prop::sample::select(vec!["", "STATIC", "STRICT_DNS", "EDS"]);
    let own = (kind, any::<bool>(), prop::collection::vec(tree(), 3));
    let clusters = prop::collection::vec(own, 1..5);
    (clusters, prop::collection::vec(tree(), 4), any::<bool>()).prop_map(|(clusters, extra, camel)| {
        let spell = |snake: &'static str, other: &'static str| if camel { other } else { snake }.to_owned();
        let list = clusters.into_iter().enumerate().map(|(index, (kind, weighted, values))| {
            let mut cluster = Map::default();
            let mut values = values.into_iter();
            cluster.push("tls".to_owned(), values.next().unwrap_or(Tree::Null));
            cluster.push("name".to_owned(), Tree::Text(format!("c{index}")));
            if !kind.is_empty() {
                cluster.push("type".to_owned(), kind.into());
            }
            cluster.push(spell("load_assignment", "loadAssignment"), values.next().unwrap_or(Tree::Null));
            if weighted {
                cluster.push(spell("lb_policy", "lbPolicy"), "RING_HASH".into());
            }
            cluster.push("metadata".to_owned(), values.next().unwrap_or(Tree::Null));
            Tree::Map(cluster)
        });
        let list: Vec<Tree> = list.collect();
        let mut extra = extra.into_iter();
        let mut root = Map::default();
        let mut resources = Map::default();
        root.push("stats_config".to_owned(), extra.next().unwrap_or(Tree::Null));
        resources.push("secrets".to_owned(), extra.next().unwrap_or(Tree::Null));
        resources.push("clusters".to_owned(), Tree::List(list));
        root.push(spell("static_resources", "staticResources"), Tree::Map(resources));
        let mut node = Map::default();
        node.push("metadata".to_owned(), extra.next().unwrap_or(Tree::Null));
        root.push("node".to_owned(), Tree::Map(node));
        root.push("tracing".to_owned(), extra.next().unwrap_or(Tree::Null));
        root
    })
}

/// Takes out whatever a merge may touch.
fn untouched(mut root: Map) -> Map {
    root.remove("dynamic_resources");
    root.remove("cluster_manager");
    root.remove("layered_runtime");
    if let Some(Tree::Map(node)) = root.get_mut("node") {
        node.remove("id");
        node.remove("cluster");
    }
    if let Some(Tree::Map(resources)) = root.get_mut("static_resources")
        && let Some(Tree::List(clusters)) = resources.get_mut("clusters")
    {
        clusters.retain(|cluster| clusters::name(cluster) != Some("clairvoy_xds"));
        for cluster in clusters {
            let Tree::Map(cluster) = cluster else { continue };
            for field in
                ["type", "load_assignment", "lb_policy", "load_balancing_policy", "eds_cluster_config"]
            {
                cluster.remove(field);
            }
        }
    }
    root
}

fn as_map(text: &str, format: Format) -> Map {
    match read(text, format).unwrap() {
        Tree::Map(map) => map,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn the_rest_is_unchanged_and_merging_twice_is_merging_once(
        root in bootstrap(),
        serve in prop::sample::select(vec![Serve::Eds, Serve::CdsEds, Serve::All]),
        format in prop::sample::select(vec![Format::Yaml, Format::Json]),
        keep_lb in any::<bool>(),
        mapped in any::<bool>(),
    ) {
        let mut options = options(serve);
        options.keep_lb = keep_lb;
        options.clusters = vec![cluster("c0", mapped.then_some("llama"))];
        let text = write(&Tree::Map(root.clone()), format).unwrap();
        let once = merge(&text, format, &options).unwrap();
        prop_assert_eq!(untouched(as_map(&once.text, format)), untouched(root));
        let twice = merge(&once.text, format, &options).unwrap();
        prop_assert_eq!(&twice.text, &once.text);
        prop_assert_eq!(twice.changes, Vec::<String>::new());
    }
}
