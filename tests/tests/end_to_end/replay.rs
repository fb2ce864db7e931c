//! What was decided live is decided again from an export, down to the ids.

use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::types::Uuid;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use clairvoy::config::{self, Config};
use clairvoy::replay::{Writer, export};
use clairvoy::run::database_settings;
use clairvoy::store::{CheckpointRow, DatabaseSettings, DecisionRow, PageRow, Store};
use clairvoy::view::DemandSource;
use clairvoy_tests::{Faults, SpeedClass};

use crate::support::{Chat, Dns, Load, Site, backend, holds_for, model_server};

const REST: &str = "forecast: { step: 5s, season: 10m, horizons: [5s, 10s, 30s] }\n\
                    telemetry: { interval: 500ms, deadline: 400ms }\n";

/// How long a statement of an export may last: more than any of them needs, and less than the whole export takes.
const STATEMENT_SECONDS: u64 = 5;

const NAME: &str = "_http._tcp.found.test.";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_replayed_to_the_decisions_that_were_stored() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let late = model_server("chat", SpeedClass::Fast);
    let found = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let dns = Dns::start().await;
    dns.services(NAME, 0, &[found[0].address()]);
    let site = Site::new();
    let list = servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ");
    let fleet = format!(
        "models:\n  - {{ name: chat, pools: [a, b] }}\npools:\n  - name: a\n    capacity_rps: 6\n    \
         replicas: {{ min: 1, max: 8, cold_start: 5s, scale_down_after: 10s }}\n    backends: [{list}]\n  \
         - name: b\n    discovery:\n      \
         dns: {{ name: {NAME}, type: srv, resolver: {}, refresh: {{ min: 100ms, max: 1s }} }}\n",
        dns.address
    );
    site.configure(&format!("{REST}{fleet}"));
    let began = Utc::now() - TimeDelta::seconds(60);
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 12.0);
    load.more(100).await;
    servers[1].set_faults(Faults { slow_factor: 4.0, ..Faults::default() }).unwrap();
    clairvoy
        .state_where("the slowed one has lost weight", |state| {
            state.totals.weight_changes > 2 && state.models[0].shares.len() > 1
        })
        .await;
    assert_eq!(clairvoy.register("a", late.address()).await, StatusCode::CREATED);
    // What is found, and what a lease brings and takes.
    dns.services(NAME, 0, &[found[0].address(), found[1].address()]);
    clairvoy
        .state_where("the second one is found, and Envoys tell the demand", |state| {
            let tells = state.models[0].demand_source == DemandSource::Envoys;
            tells && backend(state, found[1].address()).is_some()
        })
        .await;
    let leased = model_server("chat", SpeedClass::Fast);
    let body = json!({ "address": leased.address().to_string(), "lease": "2s" });
    let request = clairvoy.request(Method::PUT, "/api/v1/pools/b/backends").json(&body);
    assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
    clairvoy.event("it drains").await;
    load.more(60).await;
    // A reload, a drain, and a model server that hangs are inputs, too.
    site.configure(&format!("{REST}balance: {{ correction_time: 4s }}\n{fleet}"));
    clairvoy.event("the configuration was reloaded").await;
    assert!(clairvoy.drain("a", servers[0].address()).await.is_success());
    servers[2].set_faults(Faults { metrics_hang: true, ..Faults::default() }).unwrap();
    load.more(60).await;
    load.end().await;
    holds_for("it goes on", 3.0, async || clairvoy.state().await.map(drop)).await;
    let decisions = clairvoy.state().await.unwrap().totals.decisions;
    assert!(decisions >= 6, "{decisions}");
    let (live, config) = (site.path().join("live.csv.gz"), site.config_file());
    let exported = site.run(&["export", "--from", "1h", "--out", text(&live), "--config", text(&config)]);
    assert!(exported.status.success(), "while it runs: {}", said(&exported));
    assert!(clairvoy.stop().success());

    let export = site.path().join("run.csv.gz");
    let config = site.config_file();
    let to = Utc::now().to_rfc3339();
    let export_from = |from: &str| {
        let (export, config) = (text(&export), text(&config));
        site.run(&["export", "--from", from, "--to", &to, "--out", export, "--config", config])
    };
    assert!(export_from(&began.to_rfc3339()).status.success());
    let words = said(&site.run(&["replay", text(&export)]));
    assert!(words.contains("the decisions are the same as the recorded ones"), "{words}");
    // Nothing is missing but what was before the first checkpoint.
    let (_, rest) = words.split_once("nothing before ").expect(&words);
    let (first_checkpoint, _) = rest.split_once(" was recorded").unwrap();
    let exported = export_from(first_checkpoint);
    assert!(exported.status.success(), "{}", said(&exported));
    assert!(!said(&exported).contains("note: without the order"), "{}", said(&exported));
    assert!(!said(&exported).contains("not in the database"), "{}", said(&exported));
    assert!(!site.path().join("run.csv.gz.part").exists());

    let replayed = site.run(&["replay", text(&export)]);
    let (out, words) = (String::from_utf8(replayed.stdout.clone()).unwrap(), said(&replayed));
    assert!(replayed.status.success(), "{words}");
    assert!(words.contains("the decisions are the same as the recorded ones"), "{words}");
    assert!(!words.contains("note:"), "{words}");
    assert!(out.lines().count() as u64 >= decisions, "{} of {decisions}\n{words}", out.lines().count());
    for kind in ["weights", "membership", "replicas"] {
        assert!(out.contains(&format!("\"kind\":\"{kind}\"")), "no {kind} in\n{out}");
    }
    assert_eq!(site.run(&["replay", text(&export)]).stdout, out.as_bytes(), "two runs, same bytes");

    // With other settings, something else; and the first difference is told.
    let first = site.path().join("decisions.jsonl");
    std::fs::write(&first, &out).unwrap();
    let bolder = site.path().join("bolder.yaml");
    std::fs::write(&bolder, format!("{REST}balance: {{ smoothing: 0.9 }}\n{fleet}")).unwrap();
    let other = site.run(&["replay", text(&export), "--config", text(&bolder), "--diff", text(&first)]);
    assert_eq!(other.status.code(), Some(1), "{}", said(&other));
    assert!(said(&other).contains("smoothing was 0.6, is 0.9"), "{}", said(&other));

    let broken = site.path().join("broken.csv.gz");
    let bytes = std::fs::read(&export).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() - 200]).unwrap();
    let refused = site.run(&["replay", text(&broken)]);
    assert!(!refused.status.success() && said(&refused).contains("breaks off"), "{}", said(&refused));
}

/// An empty JSON object, packed.
const NOTHING: [u8; 22] = [31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 174, 5, 0, 67, 191, 166, 163, 2, 0, 0, 0];

/// The database of a site, filled by hand; times are seconds.
struct Recorded {
    // Fields drop in this order: the server must go before its directory.
    store: Store,
    server: Store,
    site: Site,
    config: Config,
    began: DateTime<Utc>,
}

impl Recorded {
    async fn new() -> Self {
        let site = Site::new();
        site.configure(
            "models: [{ name: chat, pools: [a] }]\npools: [{ name: a, backends: [\"10.0.0.1:80\"] }]\n",
        );
        let config = config::load(&site.config_file()).unwrap();
        let settings = database_settings(&config);
        let server = Store::open(settings.clone()).await.unwrap();
        let socket = site.path().join("state/postgres/run");
        let url = format!(
            "postgres:///clairvoy?host={}&user=postgres&options[statement_timeout]={STATEMENT_SECONDS}s",
            socket.display()
        );
        let store = Store::open(DatabaseSettings { url: Some(url), ..settings }).await.unwrap();
        Self { store, server, site, config, began: (Utc::now() - TimeDelta::seconds(3000)).trunc_subsecs(6) }
    }

    fn at(&self, seconds: f64) -> DateTime<Utc> {
        self.began + TimeDelta::milliseconds((seconds * 1000.0) as i64)
    }

    async fn page(&self, run: u128, sequence: i64, at: f64, is_last: bool, bytes: usize) {
        let pool = format!("{run}-{sequence}{}", " ".repeat(bytes));
        let page = json!({
            "since": self.at(at - 1.0), "backends": [], "marks": [{ "input": { "undelivered": { "pool": pool } } }],
            "last": is_last,
        });
        let row = PageRow { run: Uuid::from_u128(run), sequence, at: self.at(at), page: page.to_string() };
        self.server.put_page(&row).await.unwrap();
    }

    async fn checkpoint(&self, run: u128, sequence: i64, at: f64) {
        let [core, pending, learner] = [(); 3].map(|()| NOTHING.to_vec());
        let row =
            CheckpointRow { run: Uuid::from_u128(run), sequence, at: self.at(at), core, pending, learner };
        self.server.put_checkpoint(&row).await.unwrap();
    }

    async fn decision(&self, at: f64) {
        let row = DecisionRow {
            id: Uuid::new_v4(),
            at: self.at(at),
            kind: "weights".to_owned(),
            model: "chat".to_owned(),
            pool: None,
            summary: format!("decided at {at}"),
            inputs: json!({}),
            changes: json!([]),
        };
        self.server.put_decision(&row).await.unwrap();
    }

    /// The rows of an export, in short, and how often `progress` was called.
    async fn exported(&self, from: f64, to: f64, progress: impl Fn()) -> Vec<String> {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let scope = (self.at(from), self.at(to), None);
        export(&self.store, &self.config, scope, &mut writer, |_| progress()).await.unwrap();
        let text = String::from_utf8(writer.finish().unwrap().1).unwrap();
        let short = |line: &str| {
            let (kind, rest) = line.split_once(',').unwrap();
            let data = rest.trim_matches(',').strip_prefix('"').unwrap().strip_suffix('"').unwrap();
            let data: Value = serde_json::from_str(&data.replace("\"\"", "\"")).unwrap();
            let text = |value: &Value| value.as_str().unwrap().trim_end().to_owned();
            match kind {
                "input" => text(&data["undelivered"]["pool"]),
                "decision" => text(&data["summary"]),
                "gap" => {
                    let at: DateTime<Utc> = serde_json::from_value(data["at"].clone()).unwrap();
                    format!("gap at {}: {}", (at - self.began).as_seconds_f64(), text(&data["why"]))
                }
                other => other.to_owned(),
            }
        };
        let rows: Vec<String> = text.lines().skip(1).map(short).collect();
        assert_eq!((rows[0].as_str(), rows[rows.len() - 1].as_str()), ("scope", "end"));
        rows[1..rows.len() - 1].to_vec()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_export_holds_nothing_in_the_database_and_keeps_the_order_of_a_run() {
    let recorded = Recorded::new().await;
    recorded.checkpoint(1, 0, 0.0).await;
    for number in 1..=150_u8 {
        // The clock is set back, by more than what is read at a time.
        let at = f64::from(number) - if number > 110 { 105.0 } else { 0.0 };
        recorded.page(1, i64::from(number), at, number == 150, 40_000).await;
    }
    let held = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
                WHERE c.relname LIKE 'input_page%' AND l.pid <> pg_backend_pid()";
    let locks = AtomicI64::new(0);
    let slowly = || {
        let query = sqlx::query_scalar::<_, i64>(held).fetch_one(recorded.server.pool());
        let found = block_in_place(|| Handle::current().block_on(query)).unwrap();
        locks.fetch_add(found, Ordering::Relaxed);
        // Longer in all than a statement may last.
        std::thread::sleep(Duration::from_millis(40));
    };
    let began = Instant::now();
    let rows = recorded.exported(0.0, 1000.0, slowly).await;
    assert!(began.elapsed() > Duration::from_secs(STATEMENT_SECONDS), "{:?}", began.elapsed());
    let (gaps, rest): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.starts_with("gap"));
    let pages = (1..=150).map(|number| format!("1-{number}"));
    assert_eq!(rest, std::iter::once("checkpoint".to_owned()).chain(pages).collect::<Vec<_>>());
    assert!(gaps.len() == 1 && gaps[0].starts_with("gap at 6: the clock was set back"), "{gaps:?}");
    assert_eq!(locks.into_inner(), 0, "locks were held on the pages");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_says_what_is_missing_and_has_all_that_led_to_its_decisions() {
    let recorded = Recorded::new().await;
    recorded.checkpoint(1, 0, 0.0).await;
    for second in 1..=3_i32 {
        recorded.page(1, second.into(), second.into(), false, 0).await;
    }
    recorded.checkpoint(2, 0, 9.0).await;
    recorded.page(2, 1, 10.0, false, 0).await;
    recorded.page(2, 2, 10.6, true, 0).await;
    for at in [-50.0, 0.0, 2.3, 2.7, 10.4] {
        recorded.decision(at).await;
    }
    let exported = async |from: f64, to: f64| recorded.exported(from, to, || ()).await;

    // A page that ends after the last decision led to it.
    assert_eq!(exported(0.001, 2.5).await, ["checkpoint", "1-1", "1-2", "1-3", "decided at 2.3"]);

    // The first process was killed, and the second one stopped in order.
    let killed = "gap at 3: what followed is not there: Clairvoy was killed, or has not written it yet";
    let first = ["checkpoint", "1-1", "1-2", "1-3", "decided at 2.3", "decided at 2.7", killed];
    let second = ["checkpoint", "2-1", "2-2", "decided at 10.4"];
    assert_eq!(exported(0.001, 1000.0).await, [&first[..], &second].concat());

    // Before the first checkpoint nothing can be replayed.
    let rows = exported(-100.0, 1000.0).await;
    assert!(rows[0].starts_with("gap at -100: nothing before"), "{}", rows[0]);
    assert_eq!(rows[1..], [&first[..], &second].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_leaves_tables_of_an_older_version_alone() {
    let recorded = Recorded::new().await;
    let last = "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations) RETURNING version";
    let newest: i64 = sqlx::query_scalar(last).fetch_one(recorded.server.pool()).await.unwrap();
    let config = recorded.site.config_file();
    let refused = recorded.site.run(&["export", "--from", "1h", "--config", text(&config)]);
    let words = said(&refused);
    assert!(!refused.status.success() && words.contains("older than this program"), "{words}");
    assert!(words.contains(&format!("version {}, and it needs {newest}", newest - 1)), "{words}");
    let left = "SELECT max(version) FROM _sqlx_migrations";
    let left: i64 = sqlx::query_scalar(left).fetch_one(recorded.server.pool()).await.unwrap();
    assert_eq!(left, newest - 1, "nothing was migrated");
}
