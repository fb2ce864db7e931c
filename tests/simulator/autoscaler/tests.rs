//! The autoscaler on real ports, with a launcher that only pretends.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Path,
    http::StatusCode,
    routing::{delete, get, post},
};
use chrono::{TimeDelta, Utc};
use tokio::time::{Instant, sleep};

use super::*;
use crate::player::loopback_client;

/// Hands out addresses and remembers what it stopped.
#[derive(Default)]
struct Pretender {
    launched: AtomicU16,
    stopped: Mutex<BTreeSet<SocketAddr>>,
}

impl Launcher for Pretender {
    async fn launch(&self, _pool: &str) -> anyhow::Result<SocketAddr> {
        let number = self.launched.fetch_add(1, Ordering::SeqCst);
        // The first one fails, to see it tried again.
        anyhow::ensure!(number > 0, "no machine is free");
        Ok(([127, 0, 0, 1], 40_000 + number).into())
    }

    async fn is_idle(&self, _backend: SocketAddr) -> bool {
        true
    }

    async fn stop(&self, backend: SocketAddr) {
        self.stopped.lock().unwrap().insert(backend);
    }
}

struct Stage {
    autoscaler: Autoscaler,
    secret: Secret,
    client: reqwest::Client,
    launcher: Arc<Pretender>,
    /// Calls of Clairvoy's API, in order.
    calls: Arc<Mutex<Vec<String>>>,
}

impl Stage {
    async fn set() -> Self {
        let calls: Arc<Mutex<Vec<String>>> = Arc::default();
        let note = |verb: &'static str, status: StatusCode| {
            let calls = Arc::clone(&calls);
            move |Path(parts): Path<Vec<String>>, body: String| async move {
                calls.lock().unwrap().push(format!("{verb} {} {body}", parts.join(" ")));
                status
            }
        };
        let api = Router::new()
            .route("/api/v1/pools/{pool}/backends", post(note("register", StatusCode::CREATED)))
            .route("/api/v1/pools/{pool}/backends/{address}/drain", post(note("drain", StatusCode::ACCEPTED)))
            .route("/api/v1/pools/{pool}/backends/{address}", delete(note("remove", StatusCode::ACCEPTED)))
            .route("/api/v1/state", get(|| async { r#"{"backends":[{"address":"127.0.0.1:9001"}]}"# }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = loopback_client(Duration::from_secs(10)).unwrap();
        let registrar = Registrar::new(client.clone(), listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, api).await });
        let (secret, launcher) = (Secret::random(), Arc::new(Pretender::default()));
        let config = AutoscalerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            secret: secret.clone(),
            pools: vec![("a".to_owned(), vec!["127.0.0.1:9001".parse().unwrap()])],
            registrar,
            on_progress: Arc::new(|_| ()),
        };
        let autoscaler = Autoscaler::start(config, Arc::clone(&launcher)).await.unwrap();
        Self { autoscaler, secret, client, launcher, calls }
    }

    async fn send(
        &self,
        secret: &Secret,
        id: &str,
        pool: &str,
        replicas: u32,
        age_seconds: i64,
    ) -> StatusCode {
        let now = Utc::now();
        let body = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "/clairvoy", "type": "dev.clairvoy.replicas.planned",
            "subject": pool, "time": now, "datacontenttype": "application/json",
            "data": { "model": "m", "pool": pool, "replicas": replicas, "current": 1, "needed_now": 1,
                "needed_forecast": replicas, "horizon_seconds": 10, "reason": "rising",
                "expires_at": now + TimeDelta::seconds(60) },
        })
        .to_string();
        let timestamp = (now.timestamp() - age_seconds).to_string();
        let request = self
            .client
            .post(format!("http://{}/hook", self.autoscaler.address()))
            .header("content-type", "application/cloudevents+json")
            .header("webhook-id", id)
            .header("webhook-timestamp", &timestamp)
            .header("webhook-signature", secret.sign(id, &timestamp, body.as_bytes()))
            .body(body);
        request.send().await.unwrap().status()
    }

    async fn until(&self, what: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !what(&self.calls.lock().unwrap()) {
            assert!(Instant::now() < deadline, "{:?}", self.calls.lock().unwrap());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_pool_grows_and_shrinks_as_webhooks_say() {
    let stage = Stage::set().await;
    assert_eq!(stage.send(&stage.secret, "d-1", "a", 3, 0).await, StatusCode::ACCEPTED);
    stage.until(|calls| calls.len() == 2).await;
    assert!(
        stage
            .calls
            .lock()
            .unwrap()
            .iter()
            .all(|call| call.starts_with("register a {\"address\":\"127.0.0.1:400"))
    );

    assert_eq!(stage.send(&stage.secret, "d-2", "a", 2, 0).await, StatusCode::ACCEPTED);
    stage.until(|calls| calls.len() == 4).await;
    let calls = stage.calls.lock().unwrap().clone();
    let drained = calls[2].strip_prefix("drain a ").unwrap().trim();
    assert!(drained.starts_with("127.0.0.1:400"), "the newest goes first: {calls:?}");
    assert_eq!(calls[3].trim(), format!("remove a {drained}"));
    let deadline = Instant::now() + Duration::from_secs(10);
    while stage.launcher.stopped.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn forged_and_stale_webhooks_change_nothing() {
    let stage = Stage::set().await;
    assert_eq!(stage.send(&Secret::random(), "d-1", "a", 5, 0).await, StatusCode::UNAUTHORIZED);
    assert_eq!(stage.send(&stage.secret, "d-2", "a", 5, 400).await, StatusCode::UNAUTHORIZED);
    assert_eq!(stage.send(&stage.secret, "d-3", "elsewhere", 5, 0).await, StatusCode::NOT_FOUND);
    let expected = WebhookCounts { forged: 1, stale: 1, malformed: 1, ..WebhookCounts::default() };
    assert_eq!(stage.autoscaler.counts(), expected);
    assert_eq!(stage.launcher.launched.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_repeated_webhook_is_answered_and_not_acted_on_again() {
    let stage = Stage::set().await;
    stage.send(&stage.secret, "d-1", "a", 2, 0).await;
    stage.send(&stage.secret, "d-2", "a", 1, 0).await;
    assert_eq!(stage.send(&stage.secret, "d-1", "a", 2, 0).await, StatusCode::ACCEPTED);
    let counts = stage.autoscaler.counts();
    assert_eq!((counts.accepted, counts.repeated), (2, 1));
    stage.autoscaler.stop().await;
}
