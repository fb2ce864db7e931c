use std::collections::VecDeque;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use chrono::TimeDelta;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::*;
use crate::signal::DeliveryOutcome;
use crate::signal::event::tests::plan;

const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const PATIENCE: Duration = Duration::from_secs(20);

/// A receiver that answers from a script, then with 204, and keeps what it got.
#[derive(Clone, Default)]
struct Receiver {
    script: Arc<Mutex<VecDeque<Response>>>,
    requests: Arc<Mutex<Vec<(Uri, HeaderMap, String)>>>,
}

impl Receiver {
    async fn start(script: impl IntoIterator<Item = Response>) -> (Self, String) {
        let receiver = Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() };
        let app = Router::new().fallback(Self::take).with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (receiver, url)
    }

    async fn take(State(receiver): State<Self>, uri: Uri, headers: HeaderMap, body: String) -> Response {
        receiver.requests.lock().unwrap().push((uri, headers, body));
        let scripted = receiver.script.lock().unwrap().pop_front();
        scripted.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response())
    }

    fn header(&self, request: usize, name: &str) -> String {
        self.requests.lock().unwrap()[request].1[name].to_str().unwrap().to_owned()
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn status(status: StatusCode) -> Response {
    status.into_response()
}

struct Bench {
    deliverer: Deliverer,
    reports: Arc<Mutex<Vec<DeliveryReport>>>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Bench {
    fn start(url: &str) -> Self {
        let endpoint = WebhookEndpoint { url: url.to_owned(), secret: Secret::parse(SECRET).unwrap() };
        let options = DeliveryOptions {
            delays: [0, 10, 20, 40].map(Duration::from_millis).to_vec(),
            timeout: Duration::from_secs(10),
            ..DeliveryOptions::default()
        };
        let reports = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&reports);
        let record = move |report: DeliveryReport| log.lock().unwrap().push(report);
        let deliverer = Deliverer::new(vec![endpoint], options, SignalMetrics::default(), record).unwrap();
        let shutdown = CancellationToken::new();
        let (runner, end) = (deliverer.clone(), shutdown.clone());
        let task = tokio::spawn(async move { runner.run(end).await });
        Self { deliverer, reports, shutdown, task }
    }

    fn enqueue(&self, pool: &str, lives: TimeDelta) -> ReplicaPlanEvent {
        let event = plan(pool, Utc::now(), lives);
        self.deliverer.enqueue(event.clone());
        event
    }

    async fn until(&self, wanted: impl Fn(&DeliveryStatus) -> bool) -> DeliveryStatus {
        let look = async {
            loop {
                let status = self.deliverer.status();
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        found.unwrap_or_else(|_| panic!("not in time: {:?}", self.deliverer.status()))
    }

    fn outcomes(&self) -> Vec<DeliveryOutcome> {
        self.reports.lock().unwrap().iter().map(|report| report.outcome).collect()
    }
}

#[tokio::test]
async fn the_receiver_gets_a_signed_cloud_event() {
    let (receiver, url) = Receiver::start([]).await;
    let bench = Bench::start(&format!("{url}/hook?token=secret"));
    let event = bench.enqueue("large-h100-a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.delivered == 1).await;
    assert_eq!((seen.attempts, seen.endpoints[0].pending), (1, 0));
    assert_eq!(seen.endpoints[0].endpoint, url, "the token is not shown");
    let (uri, headers, body) = receiver.requests.lock().unwrap()[0].clone();
    assert_eq!(uri, "/hook?token=secret");
    assert_eq!(headers[header::CONTENT_TYPE], "application/cloudevents+json");
    let id = headers["webhook-id"].to_str().unwrap();
    let timestamp = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
    let signature = headers["webhook-signature"].to_str().unwrap();
    let secret = Secret::parse(SECRET).unwrap();
    let now = Utc::now().timestamp();
    assert_eq!(secret.verify(id, timestamp, body.as_bytes(), signature, now), Ok(()));
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (body["id"].as_str().unwrap(), id),
        (event.id.to_string().as_str(), event.id.to_string().as_str())
    );
    assert_eq!((&body["subject"], &body["data"]["replicas"]), (&"large-h100-a".into(), &3.into()));
    bench.shutdown.cancel();
    tokio::time::timeout(PATIENCE, bench.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_failed_attempt_is_repeated_under_the_same_id() {
    let (receiver, url) = Receiver::start([status(StatusCode::INTERNAL_SERVER_ERROR)]).await;
    let bench = Bench::start(&url);
    let event = bench.enqueue("a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.delivered == 1).await;
    assert_eq!((seen.attempts, seen.failed, &seen.endpoints[0].last_error), (2, 0, &None));
    assert_eq!(receiver.header(0, "webhook-id"), event.id.to_string());
    assert_eq!(receiver.header(1, "webhook-id"), event.id.to_string());
    let outcomes = bench.outcomes();
    assert!(
        matches!(outcomes[..], [DeliveryOutcome::Retrying(_), DeliveryOutcome::Delivered]),
        "{outcomes:?}"
    );
    let details: Vec<_> =
        bench.reports.lock().unwrap().iter().map(|report| report.detail.clone().unwrap()).collect();
    assert_eq!(details, ["status 500", "status 204"]);
}

#[tokio::test]
async fn a_receiver_that_never_takes_it_fails_after_the_last_attempt() {
    let (receiver, url) = Receiver::start((0..4).map(|_| status(StatusCode::BAD_GATEWAY))).await;
    let bench = Bench::start(&url);
    bench.enqueue("a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.failed == 1).await;
    assert_eq!((receiver.count(), seen.endpoints[0].last_error.as_deref()), (4, Some("status 502")));
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let busy = (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response();
    let (receiver, url) = Receiver::start([busy]).await;
    let bench = Bench::start(&url);
    let started = std::time::Instant::now();
    bench.enqueue("a", TimeDelta::minutes(1));
    bench.until(|status| status.delivered == 1).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(receiver.count(), 2);
}

#[tokio::test]
async fn gone_means_gone() {
    let (receiver, url) = Receiver::start([status(StatusCode::GONE)]).await;
    let bench = Bench::start(&url);
    bench.enqueue("a", TimeDelta::minutes(1));
    bench.until(|status| status.endpoints[0].disabled).await;
    bench.enqueue("a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.disabled == 2).await;
    assert_eq!((receiver.count(), seen.endpoints[0].pending), (1, 0));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, other_url) = Receiver::start([]).await;
    let hop = || (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, other_url.clone())]).into_response();
    let (receiver, url) = Receiver::start([hop(), hop(), hop(), hop()]).await;
    let bench = Bench::start(&url);
    bench.enqueue("a", TimeDelta::minutes(1));
    bench.until(|status| status.failed == 1).await;
    assert_eq!((receiver.count(), elsewhere.count()), (4, 0));
}

#[tokio::test]
async fn an_expired_plan_is_not_delivered() {
    let slow = (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "3600")]).into_response();
    let (receiver, url) = Receiver::start([slow]).await;
    let bench = Bench::start(&url);
    bench.enqueue("stale", TimeDelta::seconds(-1));
    bench.until(|status| status.expired == 1).await;
    assert_eq!(receiver.count(), 0);
    bench.enqueue("a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.expired == 2).await;
    assert_eq!((receiver.count(), seen.delivered), (1, 0));
}

#[tokio::test]
async fn an_attempt_does_not_outlive_its_plan() {
    let app = Router::new().fallback(std::future::pending::<Response>);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let bench = Bench::start(&url);
    let started = std::time::Instant::now();
    bench.enqueue("a", TimeDelta::milliseconds(300));
    bench.until(|status| status.expired == 1).await;
    assert!(started.elapsed() < Duration::from_secs(8), "the timeout alone is 10 s");
}

#[tokio::test]
async fn the_newest_plan_of_a_pool_wins() {
    let (receiver, url) = Receiver::start([status(StatusCode::INTERNAL_SERVER_ERROR)]).await;
    let wait = (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response();
    receiver.script.lock().unwrap().push_front(wait);
    let bench = Bench::start(&url);
    let old = bench.enqueue("a", TimeDelta::minutes(1));
    bench.until(|status| status.endpoints[0].last_error.is_some()).await;
    let new = bench.enqueue("a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.delivered == 1).await;
    assert_eq!((seen.superseded, receiver.count()), (1, 3));
    assert_eq!(receiver.header(0, "webhook-id"), old.id.to_string());
    assert_eq!(receiver.header(1, "webhook-id"), new.id.to_string());
    assert_eq!(receiver.header(2, "webhook-id"), new.id.to_string());
}

#[tokio::test]
async fn a_receiver_that_does_not_listen_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let bench = Bench::start(&format!("http://{address}/"));
    bench.enqueue("a", TimeDelta::minutes(1));
    let seen = bench.until(|status| status.failed == 1).await;
    let error = seen.endpoints[0].last_error.clone().unwrap();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn impossible_endpoints_are_refused_at_once() {
    let refused = |url: &str| {
        let endpoint = WebhookEndpoint { url: url.to_owned(), secret: Secret::parse(SECRET).unwrap() };
        let ignore = |_: DeliveryReport| {};
        Deliverer::new(vec![endpoint], DeliveryOptions::default(), SignalMetrics::default(), ignore).is_err()
    };
    assert!(refused("http://169.254.169.254/latest/meta-data"));
    assert!(refused("http://[fd00:ec2::254]/"));
    assert!(refused("file:///etc/passwd"));
    assert!(!refused("http://127.0.0.1:9900/hook"));
}

#[tokio::test]
async fn outcomes_are_counted_as_metrics() {
    let mut registry = Registry::default();
    let metrics = SignalMetrics::register(&mut registry);
    metrics.ended(DeliveryOutcome::Superseded);
    let mut shown = String::new();
    encode(&mut shown, &registry).unwrap();
    assert!(shown.contains("clairvoy_signal_webhooks_total{outcome=\"superseded\"} 1"), "{shown}");
}
