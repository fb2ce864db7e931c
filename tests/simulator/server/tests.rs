use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use super::*;

fn config(class: SpeedClass, load_delay: Duration) -> ServerConfig {
    ServerConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        model: "chat-large".to_owned(),
        class,
        effects: Effects::none(),
        seed: 1,
        load_delay,
    }
}

async fn started() -> SimulatedServer {
    let server = SimulatedServer::start(config(SpeedClass::Fast, Duration::ZERO)).unwrap();
    until("loaded", || !server.state().loading).await;
    server
}

/// Polls until a condition holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "not {what} within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn send(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.0\r\nhost: simulator\r\ncontent-length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    Ok(stream)
}

struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The documents of a stream, without the final `[DONE]`, which must be there.
    fn events(&self) -> Vec<Value> {
        let mut data: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// Value of the first sample whose line begins so.
    fn metric(&self, beginning: &str) -> f64 {
        let line = self.body.lines().find(|line| line.starts_with(beginning));
        let line = line.unwrap_or_else(|| panic!("no line {beginning} in {}", self.body));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

async fn ask(
    address: SocketAddr,
    method: &'static str,
    path: &'static str,
    headers: &str,
    body: &str,
) -> Reply {
    let (headers, body) = (headers.to_owned(), body.to_owned());
    let exchange = move || {
        let mut text = String::new();
        send(address, method, path, &headers, &body)?.read_to_string(&mut text)?;
        io::Result::Ok(text)
    };
    let text = tokio::task::spawn_blocking(exchange).await.unwrap().unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

async fn page(server: &SimulatedServer) -> Reply {
    ask(server.address(), "GET", "/metrics", "", "").await
}

fn chat(fields: Value) -> String {
    let mut request =
        json!({ "model": "chat-large", "messages": [{ "role": "user", "content": "x".repeat(400) }] });
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request.to_string()
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn stream_is_openais_and_counts_in_vllms_metrics() {
    let server = started().await;
    let body = chat(json!({ "stream": true, "stream_options": { "include_usage": true }, "max_tokens": 30 }));
    let reply = ask(server.address(), "POST", CHAT, "", &body).await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("server: clairvoy-simulator"), "{}", reply.head);
    assert!(reply.head.contains("text/event-stream"), "{}", reply.head);

    let events = reply.events();
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(text.starts_with("This text is simulated"), "{text}");
    assert_eq!(text.split(' ').count(), 30);
    let (usage, rest) = events.split_last().unwrap();
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        (&usage["usage"]["prompt_tokens"], &usage["usage"]["completion_tokens"]),
        (&json!(100), &json!(30))
    );
    assert_eq!(rest.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(rest.iter().all(|event| event["usage"].is_null()));

    let page = page(&server).await;
    let labels = r#"{engine="0",model_name="chat-large""#;
    let metric = |name: &str| page.metric(&format!("{name}{labels}"));
    assert_eq!(metric("vllm:prompt_tokens_total"), 100.0);
    assert_eq!(metric("vllm:generation_tokens_total"), 30.0);
    assert_eq!(metric("vllm:time_to_first_token_seconds_count"), 1.0);
    assert_eq!(metric("vllm:inter_token_latency_seconds_count"), 29.0);
    assert_eq!(metric("vllm:e2e_request_latency_seconds_count"), 1.0);
    assert_eq!(metric("vllm:iteration_tokens_total_count"), 30.0);
    assert_eq!(metric("vllm:num_requests_running"), 0.0);
    assert_eq!(page.metric(&format!(r#"vllm:request_success_total{labels},finished_reason="length"#)), 1.0);
    assert_eq!(page.metric("simulator_info{"), 1.0);
    assert_eq!(page.metric(r#"vllm:cache_config_info{block_size="16""#), 1.0);
    // 29 decodes of 8.1 ms each and more: the times are those of iterations, not of wake-ups.
    let mean = metric("vllm:inter_token_latency_seconds_sum") / 29.0;
    assert!((0.0081..0.0085).contains(&mean), "{mean}");
    server.stop().await;
}

#[tokio::test]
async fn whole_answer_stops_at_the_header_or_the_limit() {
    let server = started().await;
    let headers = "x-simulator-prompt-tokens: 777\r\nx-simulator-output-tokens: 5\r\n";
    for (limit, tokens, reason) in [(9, 5, "stop"), (3, 3, "length")] {
        let body = chat(json!({ "max_completion_tokens": limit }));
        let reply = ask(server.address(), "POST", CHAT, headers, &body).await.json();
        assert_eq!(reply["object"], "chat.completion");
        assert_eq!(reply["choices"][0]["finish_reason"], reason);
        assert_eq!(reply["usage"]["prompt_tokens"], 777);
        assert_eq!(reply["usage"]["completion_tokens"], tokens);
    }
    let body = json!({ "model": "chat-large", "prompt": "four", "max_tokens": 4 }).to_string();
    let reply = ask(server.address(), "POST", "/v1/completions", "", &body).await.json();
    assert_eq!(reply["choices"][0]["text"], "This text is simulated:");
    server.stop().await;
}

#[tokio::test]
async fn mistakes_are_answered_in_openais_form() {
    let server = started().await;
    let other = json!({ "model": "other", "messages": [] }).to_string();
    let long = chat(json!({ "max_tokens": 4_000_000 }));
    let zero = chat(json!({ "max_tokens": 0 }));
    for (headers, body, status, code) in [
        ("", other.as_str(), 404, json!("model_not_found")),
        ("", long.as_str(), 400, json!("context_length_exceeded")),
        ("", zero.as_str(), 400, json!(null)),
        ("", "{", 400, json!(null)),
        ("x-simulator-prompt-tokens: many\r\n", &chat(json!({})), 400, json!(null)),
    ] {
        let reply = ask(server.address(), "POST", CHAT, headers, body).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        assert_eq!(reply.json()["error"]["code"], code);
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    let models = ask(server.address(), "GET", "/v1/models", "", "").await.json();
    assert_eq!(
        (&models["data"][0]["id"], &models["data"][0]["owned_by"]),
        (&json!("chat-large"), &json!("simulated"))
    );
    assert_eq!(ask(server.address(), "GET", "/health", "", "").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn client_that_leaves_frees_its_place() {
    let server = started().await;
    for stream in [true, false] {
        let body = chat(json!({ "stream": stream, "max_tokens": 20_000 }));
        let client = send(server.address(), "POST", CHAT, "", &body).unwrap();
        until("running", || server.state().engine.running == 1).await;
        until("busy", || server.state().gpu_utilisation_percent > 85.0).await;
        drop(client);
        until("idle", || server.state().engine.running == 0).await;
    }
    let state = server.state().engine;
    assert_eq!((state.totals.cancelled, state.kv_used), (2, 0.0));
    let aborted = r#"vllm:request_success_total{engine="0",model_name="chat-large",finished_reason="abort""#;
    assert_eq!(page(&server).await.metric(aborted), 2.0);
    server.stop().await;
}

#[tokio::test]
async fn port_opens_after_the_load_and_stop_lets_streams_finish() {
    let server = SimulatedServer::start(config(SpeedClass::Fast, Duration::from_secs(3))).unwrap();
    // Lets the server begin its load, which is far longer than one attempt to connect.
    tokio::task::yield_now().await;
    let refused = TcpStream::connect(server.address()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    until("loaded", || !server.state().loading).await;

    let body = chat(json!({ "stream": true, "max_tokens": 60 }));
    let answer = tokio::spawn({
        let address = server.address();
        async move { ask(address, "POST", CHAT, "", &body).await }
    });
    until("running", || server.state().engine.running == 1).await;
    server.stop().await;
    assert!(!server.was_killed());
    assert_eq!(server.state().engine.totals.completed, 1);
    assert_eq!(answer.await.unwrap().events().last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(TcpStream::connect(server.address()).is_err());
}

#[tokio::test]
async fn kill_resets_connections() {
    let server = started().await;
    let body = chat(json!({ "stream": true, "max_tokens": 20_000 }));
    let mut client = send(server.address(), "POST", CHAT, "", &body).unwrap();
    until("running", || server.state().engine.running == 1).await;
    server.set_faults(Faults { die: true, ..Faults::default() }).unwrap();
    server.closed().await;
    assert!(server.was_killed());
    let error =
        tokio::task::spawn_blocking(move || client.read_to_end(&mut Vec::new())).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(TcpStream::connect(server.address()).is_err());
}

#[tokio::test]
async fn faults_come_and_go() {
    let server = started().await;
    let faults = async |body| ask(server.address(), "POST", "/simulator/faults", "", body).await.status;
    assert_eq!(faults(r#"{"slow_factor": 0}"#).await, 400);
    assert_eq!(faults(r#"{"slow": 4}"#).await, 400);
    let short = chat(json!({ "max_tokens": 2 }));

    assert_eq!(faults(r#"{"error_rate": 1}"#).await, 200);
    let reply = ask(server.address(), "POST", CHAT, "", &short).await;
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("server_error")));

    assert_eq!(faults(r#"{"metrics_garbage": true}"#).await, 200);
    let garbage = page(&server).await;
    assert!(garbage.metric("vllm:num_requests_running{").is_nan());
    assert!(garbage.metric("vllm:num_requests_waiting{") < 0.0);
    assert!(garbage.metric("DCGM_FI_DEV_GPU_UTIL{") >= 9.2e18);

    assert_eq!(faults(r#"{"metrics_huge": true}"#).await, 200);
    assert!(page(&server).await.body.len() >= 100_000_000);

    assert_eq!(faults(r#"{"hang": true}"#).await, 200);
    let answer = tokio::spawn({
        let (address, body) = (server.address(), chat(json!({ "stream": true, "max_tokens": 2 })));
        async move { ask(address, "POST", CHAT, "", &body).await }
    });
    until("taken", || server.state().engine.totals.submitted == 1).await;
    let held = Instant::now();
    until("held for longer than an answer takes", || held.elapsed() > Duration::from_millis(150)).await;
    assert!(!answer.is_finished() && server.state().engine.totals.completed == 0);
    assert_eq!(faults("{}").await, 200);
    assert_eq!(answer.await.unwrap().status, 200);
    let ttft = page(&server).await.metric("vllm:time_to_first_token_seconds_sum{");
    assert!(ttft >= 0.15, "{ttft}");

    let state = ask(server.address(), "GET", "/simulator/state", "", "").await.json();
    assert_eq!((&state["simulated"], &state["faults"]["hang"]), (&json!(true), &json!(false)));
    server.kill();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_names_its_server_and_reports_its_load_when_asked() {
    let server = started().await;
    let address = server.address();
    let body = r#"{"model": "chat-large", "max_tokens": 3, "prompt": "Hello"}"#;
    let plain = ask(address, "POST", "/v1/completions", "", body).await;
    assert!(plain.head.contains(&format!("x-simulator-address: {address}")), "{}", plain.head);
    assert!(!plain.head.contains("endpoint-load-metrics"), "{}", plain.head);
    let reply = ask(address, "POST", "/v1/completions", "endpoint-load-metrics-format: json\r\n", body).await;
    let line = reply.head.lines().find_map(|line| line.strip_prefix("endpoint-load-metrics: JSON "));
    let report: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{}", reply.head))).unwrap();
    assert!(report["rps_fractional"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["application_utilization"].as_f64().unwrap() > 0.0, "{report}");
    let reply = ask(address, "POST", "/v1/completions", "endpoint-load-metrics-format: text\r\n", body).await;
    assert!(reply.head.contains("endpoint-load-metrics: TEXT application_utilization="), "{}", reply.head);
}

#[tokio::test]
async fn a_cold_start_can_be_ended() {
    let server = SimulatedServer::start(config(SpeedClass::Fast, Duration::from_secs(3600))).unwrap();
    assert!(TcpStream::connect(server.address()).is_err());
    server.open();
    until("open", || !server.state().loading).await;
    assert!(TcpStream::connect(server.address()).is_ok());
}
