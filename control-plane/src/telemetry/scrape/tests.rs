mod access;
mod hostile;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use futures::StreamExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use super::*;
use crate::telemetry::drops::DropReason;
use crate::telemetry::field::Field;

const PATIENCE: Duration = Duration::from_secs(20);

const OPTIONS: ScrapeOptions = ScrapeOptions {
    interval: Duration::from_millis(50),
    deadline: Duration::from_millis(2000),
    max_page_bytes: 1024 * 1024,
    max_concurrent: 16,
};

async fn serve(app: Router) -> Arc<str> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address.into()
}

async fn backend<F, R>(answer: F) -> Arc<str>
where
    F: Fn() -> R + Clone + Send + Sync + 'static,
    R: IntoResponse + Send + 'static,
{
    serve(Router::new().route("/metrics", get(move || std::future::ready(answer())))).await
}

/// A scraper under test, with the ends that its user holds.
struct Bench {
    targets: watch::Sender<Arc<Vec<ScrapeTarget>>>,
    outcomes: mpsc::Receiver<ScrapeOutcome>,
    metrics: TelemetryMetrics,
    registry: Registry,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn start(options: ScrapeOptions, targets: Vec<ScrapeTarget>) -> Self {
        Self::start_with_queue(options, targets, 1000)
    }

    fn start_with_queue(options: ScrapeOptions, targets: Vec<ScrapeTarget>, queue: usize) -> Self {
        let (targets, followed) = watch::channel(Arc::new(targets));
        let (sender, outcomes) = mpsc::channel(queue);
        let mut registry = Registry::default();
        let metrics = TelemetryMetrics::register(&mut registry);
        let shutdown = CancellationToken::new();
        let scraper = Scraper::new(options, followed, sender, metrics.clone()).unwrap();
        let task = tokio::spawn(scraper.run(shutdown.clone()));
        Self { targets, outcomes, metrics, registry, shutdown, task }
    }

    fn of(backend: &Arc<str>) -> Self {
        Self::start(OPTIONS, vec![ScrapeTarget::new(Arc::clone(backend))])
    }

    async fn next(&mut self) -> ScrapeOutcome {
        timeout(PATIENCE, self.outcomes.recv()).await.expect("an outcome in time").unwrap()
    }

    async fn sample(&mut self) -> Sample {
        self.next().await.result.unwrap()
    }

    async fn failure(&mut self) -> ScrapeFailure {
        self.next().await.result.unwrap_err()
    }

    /// The value of a series on the page.
    fn shows(&self, series: &str) -> Option<u64> {
        let mut page = String::new();
        encode(&mut page, &self.registry).unwrap();
        page.lines().find_map(|line| line.strip_prefix(series)?.parse().ok())
    }

    async fn eventually(&mut self, wanted: impl Fn(&Self) -> bool) {
        let look = async {
            while !wanted(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, look).await.expect("the condition in time");
    }
}

#[tokio::test]
async fn a_good_page_becomes_a_sample() {
    let page = include_str!("../fixtures/vllm.txt");
    let backend = backend(move || page).await;
    let mut bench = Bench::of(&backend);
    let first = bench.next().await;
    assert_eq!(first.backend, backend);
    let first = first.result.unwrap();
    assert_eq!((first.running, first.queue_depth, first.interval_seconds), (Some(20.0), Some(4.0), 0.0));
    let second = bench.sample().await;
    assert!(second.interval_seconds > 0.0);
    assert_eq!((second.arrived, second.completed, second.ttft_seconds), (0.0, 0.0, None));
    bench.shutdown.cancel();
    timeout(PATIENCE, bench.task).await.unwrap().unwrap();
    let mut shown = String::new();
    encode(&mut shown, &bench.registry).unwrap();
    assert!(shown.contains("clairvoy_telemetry_scrapes_total"), "{shown}");
    assert!(shown.contains("clairvoy_telemetry_scrape_duration_seconds_bucket"), "{shown}");
}

#[tokio::test]
async fn counters_become_counts_and_a_restart_starts_anew() {
    let scrapes = Arc::new(AtomicUsize::new(0));
    let completed = [100, 105, 112, 2, 4];
    let backend = backend(move || {
        let scrape = scrapes.fetch_add(1, Ordering::SeqCst).min(completed.len() - 1);
        format!("vllm:num_requests_running 3\nvllm:request_success_total {}\n", completed[scrape])
    })
    .await;
    let mut bench = Bench::of(&backend);
    let mut seen = Vec::new();
    for _ in 0..5 {
        let sample = bench.sample().await;
        seen.push((sample.arrived, sample.interval_seconds > 0.0));
    }
    assert_eq!(seen, [(0.0, false), (5.0, true), (7.0, true), (0.0, false), (2.0, true)]);
    assert_eq!(bench.metrics.restarts.get(), 1);
}

#[tokio::test]
async fn other_settings_make_no_other_engine() {
    let completed = Arc::new(AtomicUsize::new(100));
    let counter = Arc::clone(&completed);
    let backend = backend(move || {
        let completed = counter.fetch_add(1, Ordering::SeqCst);
        format!("vllm:num_requests_running 3\nvllm:request_success_total {completed}\n")
    })
    .await;
    let mut bench = Bench::of(&backend);
    assert_eq!(bench.sample().await.interval_seconds, 0.0);
    assert_eq!(bench.sample().await.arrived, 1.0);
    let other = ScrapeTarget { pool: "other".into(), ..ScrapeTarget::new(Arc::clone(&backend)) };
    bench.targets.send_replace(Arc::new(vec![other]));
    let mut arrived = 1;
    while completed.load(Ordering::SeqCst) < 110 {
        let sample = bench.sample().await;
        assert!(sample.interval_seconds > 0.0, "{sample:?}");
        arrived += sample.arrived as usize;
    }
    // What was on its way when the settings changed is in the first count after it.
    assert!((7..=10).contains(&arrived), "{arrived}");
}

#[tokio::test]
async fn a_counter_that_is_missing_for_a_while_counts_once() {
    let scrapes = Arc::new(AtomicUsize::new(0));
    let completed = [Some(100), Some(105), None, None, Some(112), Some(113)];
    let backend = backend(move || {
        let scrape = scrapes.fetch_add(1, Ordering::SeqCst).min(completed.len() - 1);
        let counter = completed[scrape].map(|count| {
            format!(
                "vllm:request_success_total {count}\nvllm:time_to_first_token_seconds_count {count}\n\
                 vllm:time_to_first_token_seconds_bucket{{le=\"1\"}} {count}\n"
            )
        });
        format!("vllm:num_requests_running 3\n{}", counter.unwrap_or_default())
    })
    .await;
    let mut bench = Bench::of(&backend);
    let mut seen = Vec::new();
    for _ in 0..6 {
        let sample = bench.sample().await;
        seen.push((sample.completed, sample.ttft_p95_seconds.is_some()));
    }
    let none = (0.0, false);
    assert_eq!(seen, [none, (5.0, true), none, none, (7.0, true), (1.0, true)]);
    assert_eq!(bench.metrics.restarts.get(), 0);
}

#[tokio::test]
async fn a_page_of_nonsense_values_keeps_its_good_fields() {
    let page =
        "vllm:num_requests_running NaN\nvllm:num_requests_waiting -3\nvllm:kv_cache_usage_perc 0.5\nx{ 1\n";
    let backend = backend(move || page).await;
    let mut bench = Bench::of(&backend);
    let sample = bench.sample().await;
    assert_eq!((sample.running, sample.queue_depth, sample.kv_used), (None, None, Some(0.5)));
    assert!(bench.metrics.fields_dropped(Field::Running, DropReason::NotANumber) >= 1);
    assert!(bench.metrics.fields_dropped(Field::QueueDepth, DropReason::Negative) >= 1);
    assert!(bench.metrics.bad_lines.get() >= 1);
}

#[tokio::test]
async fn a_server_that_never_answers_times_out_and_delays_nobody() {
    let silent = serve(Router::new().route("/metrics", get(std::future::pending::<String>))).await;
    let good = backend(|| "vllm:num_requests_running 1\n").await;
    let targets = vec![ScrapeTarget::new(Arc::clone(&silent)), ScrapeTarget::new(Arc::clone(&good))];
    let mut bench = Bench::start(OPTIONS, targets);
    let mut samples = 0;
    loop {
        let outcome = bench.next().await;
        if outcome.backend == silent {
            assert_eq!(outcome.result, Err(ScrapeFailure::Timeout(2000)));
            break;
        }
        samples += 1;
    }
    assert!(samples >= 5, "{samples} samples of the healthy backend while the other hung");
}

#[tokio::test]
async fn a_pool_that_hangs_keeps_no_slot_from_another() {
    let silent = serve(Router::new().route("/metrics", get(std::future::pending::<String>))).await;
    let good = backend(|| "vllm:num_requests_running 1\n").await;
    let of = |name: &str, backend: String, url: &Arc<str>| ScrapeTarget {
        backend: backend.into(),
        pool: name.into(),
        url: format!("http://{url}/metrics"),
        ..ScrapeTarget::new("".into())
    };
    let mut targets: Vec<ScrapeTarget> =
        (0..40).map(|index| of("hangs", format!("10.0.0.{index}:1"), &silent)).collect();
    targets.extend((0..4).map(|index| of("serves", format!("10.0.1.{index}:1"), &good)));
    let options = ScrapeOptions { deadline: Duration::from_millis(400), ..OPTIONS };
    let mut bench = Bench::start(options, targets);
    let mut samples = 0;
    while samples < 60 {
        let outcome = bench.next().await;
        if outcome.backend.starts_with("10.0.1.") {
            outcome.result.expect("the other pool is scraped as if nothing were");
            samples += 1;
        }
    }
    bench.eventually(|bench| bench.metrics.scrapes_failed() > 40).await;
    // Between a scrape that is given up and the next one a slot is free for a moment.
    let in_use = "clairvoy_telemetry_slots_in_use{pool=\"hangs\"} ";
    bench.eventually(|bench| bench.shows(in_use) == Some(8)).await;
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(bench.shows(in_use).unwrap());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(most, 8);
    assert!(bench.shows("clairvoy_telemetry_no_slot_total{pool=\"hangs\"} ").is_some());
    assert_eq!(bench.shows("clairvoy_telemetry_no_slot_total{pool=\"serves\"} "), None);
}

#[tokio::test]
async fn an_endless_page_is_cut_off() {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let backend = backend(move || {
        let counter = Arc::clone(&counter);
        let chunk = Bytes::from(vec![b'#'; 64 * 1024]);
        let chunks = futures::stream::iter(0..1600).map(move |_| {
            counter.fetch_add(64 * 1024, Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>(chunk.clone())
        });
        Body::from_stream(chunks)
    })
    .await;
    let mut bench = Bench::start(
        ScrapeOptions { interval: Duration::from_secs(60), ..OPTIONS },
        vec![ScrapeTarget::new(backend)],
    );
    let limit_bytes = OPTIONS.max_page_bytes;
    assert_eq!(bench.failure().await, ScrapeFailure::TooLarge { limit_bytes });
    assert!(sent.load(Ordering::SeqCst) < 50 << 20, "the connection was dropped early");
    assert!(bench.metrics.bytes.get() < 2 * limit_bytes as u64);
    assert_eq!(bench.metrics.scrapes_failed(), 1);
}

#[tokio::test]
async fn answers_that_are_no_metrics_page_are_named() {
    let html = || ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], "vllm:num_requests_running 1\n");
    let packed = || ([(header::CONTENT_ENCODING, "br")], "vllm:num_requests_running 1\n");
    let json = || ([(header::CONTENT_TYPE, "application/json")], "[]");
    let cases = [
        (backend(|| StatusCode::INTERNAL_SERVER_ERROR).await, ScrapeFailure::Status(500)),
        (backend(|| Redirect::temporary("http://127.0.0.1:1/")).await, ScrapeFailure::Status(307)),
        (backend(json).await, ScrapeFailure::NoKnownMetrics { samples: 0, bad_lines: 0 }),
        (backend(html).await, ScrapeFailure::NotText("text/html".into())),
        (backend(packed).await, ScrapeFailure::Packed("br".into())),
        (backend(|| "up 1\n???\n").await, ScrapeFailure::NoKnownMetrics { samples: 1, bad_lines: 1 }),
    ];
    for (backend, expected) in cases {
        assert_eq!(Bench::of(&backend).failure().await, expected);
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failure = Bench::of(&closed.to_string().into()).failure().await;
    assert!(matches!(failure, ScrapeFailure::Connect(_)), "{failure}");
    let failure = Bench::of(&"not a host".into()).failure().await;
    assert!(matches!(failure, ScrapeFailure::BadUrl(_)), "{failure}");
}

fn gzipped(page: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, page).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn pages_come_in_several_forms() {
    const DELIMITED: &str =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
    // One family of one untyped metric: name, and value 2.
    let name = b"vllm:num_requests_running";
    let metric = [&[0x22, 11, 0x2a, 9, 0x09][..], &2.0_f64.to_le_bytes()].concat();
    let family = [&[0x0a, name.len() as u8][..], name, &metric].concat();
    let protobuf = [&[family.len() as u8][..], &family].concat();
    let text = b"vllm:num_requests_running 2\n".to_vec();
    let json = br#"[{"numActiveRequests": 2, "numQueuedRequests": 0}]"#.to_vec();
    for (kind, encoding, page) in [
        ("text/plain; version=0.0.4", "identity", text.clone()),
        ("text/plain; version=0.0.4", "gzip", gzipped(&text)),
        ("application/openmetrics-text; version=1.0.0", "identity", [&text, &b"# EOF\n"[..]].concat()),
        (DELIMITED, "identity", protobuf.clone()),
        (DELIMITED, "gzip", gzipped(&protobuf)),
        ("application/json", "identity", json),
    ] {
        let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_ENCODING, encoding)];
        let backend = backend(move || (headers.clone(), page.clone())).await;
        assert_eq!(Bench::of(&backend).sample().await.running, Some(2.0), "{kind} {encoding}");
    }
    let bomb = gzipped(&vec![b'#'; 64 << 20]);
    assert!(bomb.len() < OPTIONS.max_page_bytes);
    let packed = [(header::CONTENT_TYPE, "text/plain"), (header::CONTENT_ENCODING, "gzip")];
    let bomb = backend(move || (packed.clone(), bomb.clone())).await;
    let limit_bytes = OPTIONS.max_page_bytes;
    assert_eq!(Bench::of(&bomb).failure().await, ScrapeFailure::TooLarge { limit_bytes });
    let torn = backend(move || ([(header::CONTENT_ENCODING, "gzip")], "no gzip at all")).await;
    assert!(matches!(Bench::of(&torn).failure().await, ScrapeFailure::Broken(_)));
}

#[tokio::test]
async fn a_body_that_trickles_is_given_up_at_the_deadline() {
    let backend = backend(|| {
        let bytes = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b"#")), ()))
        });
        Body::from_stream(bytes)
    })
    .await;
    let deadline = Duration::from_millis(300);
    let options = ScrapeOptions { deadline, ..OPTIONS };
    let mut bench = Bench::start(options, vec![ScrapeTarget::new(backend)]);
    assert_eq!(bench.failure().await, ScrapeFailure::Timeout(300));
}

#[tokio::test]
async fn a_renamed_metric_is_an_event_with_its_new_name_and_a_fault_of_the_backend() {
    let scrapes = Arc::new(AtomicUsize::new(0));
    let backend = backend(move || {
        let name = if scrapes.fetch_add(1, Ordering::SeqCst) < 3 {
            "kv_cache_usage_perc"
        } else {
            "kv_memory_usage_perc"
        };
        format!("vllm:num_requests_running 0\nvllm:num_requests_waiting 0\nvllm:{name} 0.5\n")
    })
    .await;
    let mut bench = Bench::of(&backend);
    let outcome = loop {
        let outcome = bench.next().await;
        if !outcome.drift.is_empty() {
            break outcome;
        }
    };
    let told = outcome.drift[0].to_string();
    assert!(told.starts_with("kv_used is no longer") && told.contains("vllm:kv_memory_usage_perc"), "{told}");
    assert_eq!(outcome.faults.len(), 1);
    assert_eq!(bench.metrics.faults_began(crate::telemetry::FaultKind::Vanished), 1);
    assert!(outcome.result.is_ok(), "the rest of the page is in use");
}

#[tokio::test]
async fn targets_come_and_go_while_others_go_on() {
    let first = backend(|| "vllm:num_requests_running 1\n").await;
    let second = backend(|| "vllm:num_requests_running 2\n").await;
    let target = |backend: &Arc<str>| ScrapeTarget::new(Arc::clone(backend));
    let mut bench = Bench::of(&first);
    assert_eq!(bench.next().await.backend, first);
    bench.targets.send_replace(Arc::new(vec![target(&first), target(&second)]));
    let mut seen = HashSet::new();
    while seen.len() < 2 {
        let outcome = bench.next().await;
        let restarted = outcome.backend == first && outcome.result.unwrap().interval_seconds == 0.0;
        assert!(!restarted, "the first target was started anew");
        seen.insert(outcome.backend);
    }
    bench.targets.send_replace(Arc::new(vec![target(&second)]));
    bench.eventually(|bench| bench.metrics.targets.get() == 1).await;
    while bench.outcomes.try_recv().is_ok() {}
    // One outcome may have been on its way when the target left.
    let backends =
        [bench.next().await, bench.next().await, bench.next().await].map(|outcome| outcome.backend);
    assert!(backends[1..].iter().all(|backend| *backend == second), "{backends:?}");
}

#[tokio::test]
async fn a_gpu_page_of_its_own_is_read_beside_the_engines() {
    let engine = backend(|| "vllm:num_requests_running 1\nDCGM_FI_DEV_GPU_UTIL 10\n").await;
    let gpu = backend(|| include_str!("../fixtures/dcgm.txt")).await;
    let target = ScrapeTarget::new(engine);
    let read =
        async |target: ScrapeTarget| Bench::start(OPTIONS, vec![target]).sample().await.gpu_utilisation;
    assert!(
        (read(target.clone().with_gpu_template(&format!("http://{gpu}/metrics"))).await.unwrap() - 0.8).abs()
            < 1e-9
    );
    assert_eq!(read(target.clone().with_gpu_template("http://{host}:1/metrics")).await, None);
    assert_eq!(read(target.clone()).await, Some(0.1));
    let none = ScrapeTarget { gpu: crate::telemetry::GpuPage::None, ..target };
    assert_eq!(read(none).await, None);
}

#[tokio::test]
async fn connections_are_kept() {
    let peers = Arc::new(Mutex::new(HashSet::new()));
    let seen = Arc::clone(&peers);
    let answer = move |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<std::net::SocketAddr>| {
        seen.lock().unwrap().insert(peer);
        std::future::ready("vllm:num_requests_running 1\n")
    };
    let app = Router::new().route("/metrics", get(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Arc<str> = listener.local_addr().unwrap().to_string().into();
    let service = app.into_make_service_with_connect_info::<std::net::SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    let mut bench = Bench::of(&address);
    for _ in 0..5 {
        bench.sample().await;
    }
    assert_eq!(peers.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_queue_drops_and_counts() {
    let backend = backend(|| "vllm:num_requests_running 1\n").await;
    let mut bench = Bench::start_with_queue(OPTIONS, vec![ScrapeTarget::new(backend)], 1);
    bench.eventually(|bench| bench.metrics.outcomes_dropped() >= 2).await;
    bench.sample().await;
}

#[tokio::test]
async fn scrapes_at_once_are_bounded() {
    let silent = serve(Router::new().route("/metrics", get(std::future::pending::<Response>))).await;
    let twin = serve(Router::new().route("/metrics", get(std::future::pending::<Response>))).await;
    let deadline = Duration::from_millis(200);
    let options =
        ScrapeOptions { max_concurrent: 1, deadline, interval: Duration::from_millis(201), ..OPTIONS };
    let mut bench = Bench::start(options, vec![ScrapeTarget::new(silent), ScrapeTarget::new(twin)]);
    let mut kinds = HashSet::new();
    let look = async {
        while kinds.len() < 2 {
            kinds.insert(bench.failure().await);
        }
    };
    timeout(PATIENCE, look).await.expect("both kinds in time");
    assert_eq!(kinds, HashSet::from([ScrapeFailure::Timeout(200), ScrapeFailure::NoSlot(100)]));
}

#[test]
fn phases_spread_over_the_interval() {
    let interval = Duration::from_secs(1);
    for count in [2_u64, 3, 10, 1000] {
        let mut phases: Vec<f64> = (0..count).map(|nth| phase(nth, interval).as_secs_f64()).collect();
        phases.sort_by(f64::total_cmp);
        let widest =
            phases.windows(2).map(|pair| pair[1] - pair[0]).fold(1.0 - phases[phases.len() - 1], f64::max);
        assert!(widest < 2.0 / count as f64, "{count}: {widest}");
    }
}
