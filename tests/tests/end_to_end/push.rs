//! Telemetry that real senders push.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use clairvoy::view::{BackendState, State};
use clairvoy_tests::SpeedClass;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Chat, Load, Process, Site, backend, client, free_address, model_server, otlp, prometheus_program, until,
};

/// A Prometheus that scrapes a model server and writes on what it finds.
fn prometheus(site: &Site, target: SocketAddr, url: &str) -> Process {
    let config = site.path().join("prometheus.yml");
    let text = format!(
        "global: {{ scrape_interval: 1s, external_labels: {{ prometheus_replica: one }} }}\n\
         scrape_configs: [{{ job_name: vllm, static_configs: [{{ targets: [\"{target}\"] }}] }}]\n\
         remote_write:\n\
         - url: {url}\n\
         \x20 queue_config: {{ batch_send_deadline: 200ms, max_shards: 2 }}\n\
         \x20 write_relabel_configs: [{{ source_labels: [__name__], regex: \"vllm:.*|simulator_.*\", action: keep }}]\n"
    );
    fs::write(&config, text).unwrap();
    let mut command = Command::new(prometheus_program());
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", site.path().join("prometheus").display()));
    command.arg(format!("--web.listen-address={}", free_address())).current_dir(site.path());
    Process::spawn("Prometheus", &mut command, site.path().join("prometheus.log"))
}

/// A shell script, as an operator writes it.
fn shell(site: &Site, url: &str, body: &str) -> Process {
    let script = format!(
        "while :; do curl -fsS -H 'Content-Type: application/json' -d '{body}' {url} || exit 1; sleep 1; done"
    );
    let mut command = Command::new("sh");
    Process::spawn("the shell script", command.args(["-c", &script]), site.path().join("shell.log"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn telemetry_comes_from_real_senders() {
    let server = model_server("chat", SpeedClass::Fast);
    let [grpc, http, by_grpc, by_http, by_curl] = [(); 5].map(|()| free_address());
    let site = Site::new();
    site.configure(&format!(
        "telemetry: {{ push: {{ otlp_grpc: {grpc}, http: {http} }} }}\n\
         models:\n  - {{ name: chat, pools: [a, b] }}\n\
         pools:\n  - {{ name: a, telemetry: push, backends: [\"{}\"] }}\n  \
         - {{ name: b, telemetry: push, backends: [\"{by_grpc}\", \"{by_http}\", \"{by_curl}\"] }}\n",
        server.address()
    ));
    let clairvoy = site.serve().await;
    let _prometheus = prometheus(&site, server.address(), &format!("http://{http}/api/v1/write"));
    let _grpc = otlp(&site, "grpc", &format!("http://{grpc}"), &by_grpc, 3, &[]);
    let _http = otlp(&site, "http", &format!("http://{http}/v1/metrics"), &by_http, 4, &[]);
    let body = json!({"backend": by_curl.to_string(), "queue_depth": 5, "running": 8, "kv_used": 0.5});
    let curl = shell(&site, &format!("http://{http}/api/v1/telemetry"), &body.to_string());

    let expected = [(by_grpc, Some(3.0)), (by_http, Some(4.0)), (by_curl, Some(5.0))];
    let state = clairvoy
        .state_where("all have telemetry", |state| {
            let queue = |address: SocketAddr| backend(state, address).and_then(|backend| backend.queue_depth);
            expected.iter().all(|(address, depth)| queue(*address) == *depth)
                && queue(server.address()).is_some()
                && state.backends.iter().all(|backend| backend.state == BackendState::Ready)
                && [by_grpc, by_http].iter().all(|address| {
                    backend(state, address).is_some_and(|backend| backend.ttft_seconds.is_some())
                })
        })
        .await;
    let ttft = backend(&state, by_http).unwrap().ttft_seconds.unwrap();
    assert!((ttft - 0.25).abs() < 1e-6, "of a histogram: {ttft}");
    let seen = backend(&state, by_curl).unwrap();
    assert_eq!((seen.running, seen.kv_used), (Some(8.0), Some(0.5)));

    until("each has rows in the database", 30, async || {
        let rows = clairvoy.rows_by_backend().await.map_err(|error| error.to_string())?;
        let enough =
            state.backends.iter().all(|backend| rows.get(&backend.address).is_some_and(|rows| *rows >= 3));
        if enough { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let page = clairvoy.metrics().await;
    assert!(page.contains("clairvoy_telemetry_targets 0"), "nothing is scraped");
    for protocol in ["otlp_grpc", "otlp_http", "remote_write", "json"] {
        let taken = format!("clairvoy_push_points_total{{protocol=\"{protocol}\"}}");
        assert!(
            page.lines().any(|line| line.starts_with(&taken) && !line.ends_with(" 0")),
            "{protocol}:\n{page}"
        );
        let partial = format!("clairvoy_push_requests_total{{protocol=\"{protocol}\",outcome=\"partial\"}}");
        assert!(!page.contains(&partial), "{protocol}:\n{page}");
    }
    assert!(page.contains("clairvoy_push_unknown_points_total{protocol=\"otlp_grpc\"}"), "{page}");

    // What the model server does is seen through Prometheus.
    let load = Load::start(Chat::new(server.address(), "chat", 60), 8.0);
    clairvoy
        .state_where("the load is seen", |state| {
            backend(state, server.address())
                .is_some_and(|backend| backend.running.is_some_and(|count| count > 0.0))
        })
        .await;
    load.end().await;

    drop(curl);
    let is_down = |state: &State| {
        backend(state, by_curl).is_some_and(|backend| {
            backend.state == BackendState::Down && backend.reason.contains("no telemetry has been pushed")
        })
    };
    clairvoy.state_where("the one that pushes no more is down", is_down).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_write_to_the_pools_of_their_token_only() {
    let [http, of_a, of_b] = [(); 3].map(|()| free_address());
    let mut site = Site::new();
    let configure = |site: &Site, address: &str, tokens: &str| {
        site.configure(&format!(
            "telemetry: {{ push: {{ http: \"{address}\", {tokens} }} }}\n\
             models:\n  - {{ name: chat, pools: [a, b] }}\n\
             pools:\n  - {{ name: a, telemetry: push, backends: [\"{of_a}\"] }}\n  \
             - {{ name: b, telemetry: push, backends: [\"{of_b}\"] }}\n"
        ));
    };
    let refused = |site: &Site| {
        let output = site.run(&["serve", "--config", site.config_file().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    configure(&site, &format!("0.0.0.0:{}", http.port()), "");
    let said = refused(&site);
    assert!(said.contains("reachable from other machines") && said.contains("tokens"), "{said}");
    let tokens = "tokens: [{ token_env: TEAM_A, pools: [a] }, { token_env: TEAM_B, pools: [b] }]";
    configure(&site, &http.to_string(), tokens);
    assert!(refused(&site).contains("TEAM_A"));
    site.set("TEAM_A", "correct horse battery");
    site.set("TEAM_B", "staple of all batteries");
    let clairvoy = site.serve().await;

    let send = async |token: Option<&str>, backend: SocketAddr| {
        let body = json!({"backend": backend.to_string(), "queue_depth": 2});
        let mut request = client().post(format!("http://{http}/api/v1/telemetry")).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    for (token, backend, status) in [
        (None, of_a, StatusCode::UNAUTHORIZED),
        (Some("correct horse batterz"), of_a, StatusCode::UNAUTHORIZED),
        (Some("correct horse battery"), of_b, StatusCode::FORBIDDEN),
        (Some("correct horse battery"), of_a, StatusCode::OK),
    ] {
        let (answered, body) = send(token, backend).await;
        assert_eq!(answered, status, "{body}");
    }
    let seen = clairvoy
        .state_where("the sample is seen", |state| {
            backend(state, of_a).is_some_and(|backend| backend.queue_depth == Some(2.0))
        })
        .await;
    assert_eq!(backend(&seen, of_b).unwrap().queue_depth, None);
    let page = clairvoy.metrics().await;
    assert!(
        page.contains("clairvoy_push_refused_points_total{protocol=\"json\",reason=\"forbidden\"} 1"),
        "{page}"
    );
    assert!(page.contains("outcome=\"unauthenticated\"} 2"), "{page}");
    let log = clairvoy.log();
    assert!(!log.contains("battery") && !log.contains("staple"), "{log}");
}
