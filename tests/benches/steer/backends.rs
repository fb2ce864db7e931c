//! The backends: a metrics page on a port each, of an engine that goes by a formula. Nobody sends them requests.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// Seconds of an iteration with an empty batch, and for each of its sequences.
const FIXED_SECONDS: f64 = 0.012;
const SEQUENCE_SECONDS: f64 = 0.000_4;
/// Tokens of a prompt and of an answer.
const PROMPT_TOKENS: f64 = 500.0;
const OUTPUT_TOKENS: f64 = 200.0;
/// How many times longer iterations take while a backend is slow, and requests that wait then.
const SLOW_FACTOR: f64 = 12.0;
const WAITING: f64 = 20.0;
/// Upper edges of the buckets of all histograms, seconds.
const EDGES: [f64; 8] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// One backend.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    number: usize,
    engine: Mutex<Engine>,
}

#[derive(Debug)]
struct Engine {
    began: Instant,
    told: Instant,
    is_slow: bool,
    /// What it is to be from the next page on: so that a page is either all before the change or all after it.
    becomes_slow: bool,
    /// When the first page was answered that was slow all along.
    shown: Option<DateTime<Utc>>,
    iterations: f64,
    output_tokens: f64,
    /// Sums of all times between tokens and to first ones, seconds.
    token_seconds: f64,
    ttft_seconds: f64,
}

impl Engine {
    fn completed(&self) -> f64 {
        (self.output_tokens / OUTPUT_TOKENS).floor()
    }
}

/// A page, and whether it is of a slow engine.
struct Page {
    text: String,
    is_slow: bool,
}

impl Backend {
    /// Starts to answer on a port of the system's choice.
    pub(crate) async fn start(number: usize) -> Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let now = Instant::now();
        let engine = Engine {
            began: now,
            told: now,
            is_slow: false,
            becomes_slow: false,
            shown: None,
            iterations: 0.0,
            output_tokens: 0.0,
            token_seconds: 0.0,
            ttft_seconds: 0.0,
        };
        let address = listener.local_addr()?;
        let backend = Arc::new(Self { address, number, engine: Mutex::new(engine) });
        tokio::spawn(accept(listener, Arc::clone(&backend)));
        Ok(backend)
    }

    /// Makes it slow, or well again, from the next page on.
    pub(crate) fn set_slow(&self, is_slow: bool) {
        self.engine().becomes_slow = is_slow;
    }

    /// When the first page was answered that was of a slow engine.
    pub(crate) fn shown(&self) -> Option<DateTime<Utc>> {
        self.engine().shown
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page of what happened up to now.
    fn page(&self) -> Page {
        let now = Instant::now();
        let mut engine = self.engine();
        let seconds = now.duration_since(engine.told).as_secs_f64();
        let is_slow = engine.is_slow;
        let wave = (self.number * 31 + 7 * engine.began.elapsed().as_secs() as usize) % 24;
        let running = 12.0 + wave as f64;
        let iteration_seconds =
            (FIXED_SECONDS + SEQUENCE_SECONDS * running) * if is_slow { SLOW_FACTOR } else { 1.0 };
        let completed = engine.completed();
        engine.iterations += seconds / iteration_seconds;
        engine.output_tokens += running * seconds / iteration_seconds;
        engine.token_seconds += running * seconds;
        engine.ttft_seconds += (engine.completed() - completed) * 2.0 * iteration_seconds;
        engine.told = now;
        engine.is_slow = engine.becomes_slow;
        let text = written(running, if is_slow { WAITING } else { 0.0 }, &engine);
        Page { text, is_slow }
    }

    fn answers(&self, page: &Page) {
        if page.is_slow {
            self.engine().shown.get_or_insert_with(Utc::now);
        }
    }
}

fn written(running: f64, waiting: f64, engine: &Engine) -> String {
    let completed = engine.completed();
    let prompt_tokens = completed * PROMPT_TOKENS;
    let mut page = String::with_capacity(4096);
    let mut single = |name: &str, kind: &str, value: f64| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# TYPE vllm:{name} {kind}\nvllm:{name}{{model_name=\"chat\"}} {value:?}");
    };
    single("num_requests_running", "gauge", running);
    single("num_requests_waiting", "gauge", waiting);
    single("kv_cache_usage_perc", "gauge", running / 64.0);
    single("prompt_tokens_total", "counter", prompt_tokens);
    single("generation_tokens_total", "counter", engine.output_tokens.floor());
    single("request_success_total", "counter", completed);
    single("num_preemptions_total", "counter", 0.0);
    histogram(
        &mut page,
        "iteration_tokens_total",
        engine.iterations.floor(),
        engine.output_tokens.floor() + prompt_tokens,
    );
    histogram(&mut page, "inter_token_latency_seconds", engine.output_tokens.floor(), engine.token_seconds);
    histogram(&mut page, "time_to_first_token_seconds", completed, engine.ttft_seconds);
    page
}

fn histogram(page: &mut String, name: &str, count: f64, sum: f64) {
    let _ = writeln!(page, "# TYPE vllm:{name} histogram");
    for (place, edge) in EDGES.iter().enumerate() {
        let below = (count * (place + 1) as f64 / EDGES.len() as f64).floor();
        let _ = writeln!(page, "vllm:{name}_bucket{{model_name=\"chat\",le=\"{edge:?}\"}} {below:?}");
    }
    let labels = "{model_name=\"chat\"}";
    let _ = writeln!(page, "vllm:{name}_bucket{{model_name=\"chat\",le=\"+Inf\"}} {count:?}");
    let _ = writeln!(page, "vllm:{name}_count{labels} {count:?}\nvllm:{name}_sum{labels} {sum:?}");
}

async fn accept(listener: TcpListener, backend: Arc<Backend>) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(serve(connection, Arc::clone(&backend)));
    }
}

/// Answers each request of a connection; requests have no body, so each ends with an empty line.
async fn serve(mut connection: TcpStream, backend: Arc<Backend>) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut request = Vec::with_capacity(1024);
    loop {
        if connection.read_buf(&mut request).await? == 0 || request.len() > 16 * 1024 {
            return Ok(());
        }
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            let page = backend.page();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: {}\r\n\r\n",
                page.text.len()
            );
            let answer = [head.as_bytes(), page.text.as_bytes()].concat();
            backend.answers(&page);
            connection.write_all(&answer).await?;
        }
    }
}
