//! What was decided live is decided again from an export, down to the ids.

use std::path::Path;
use std::process::Output;

use chrono::{TimeDelta, Utc};
use reqwest::{Method, StatusCode};
use serde_json::json;

use clairvoy::view::DemandSource;
use clairvoy_tests::{Faults, SpeedClass};

use crate::support::{Chat, Dns, Load, Site, backend, holds_for, model_server};

const REST: &str = "forecast: { step: 5s, season: 10m, horizons: [5s, 10s, 30s] }\n\
                    telemetry: { interval: 500ms, deadline: 400ms }\n";

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
    assert!(clairvoy.stop().success());

    let export = site.path().join("run.csv.gz");
    let config = site.config_file();
    let (from, to) = (began.to_rfc3339(), Utc::now().to_rfc3339());
    let exported = site.run(&[
        "export",
        "--from",
        &from,
        "--to",
        &to,
        "--out",
        text(&export),
        "--config",
        text(&config),
    ]);
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
    assert!(said(&other).contains("smoothing was 0.3, is 0.9"), "{}", said(&other));

    let broken = site.path().join("broken.csv.gz");
    let bytes = std::fs::read(&export).unwrap();
    std::fs::write(&broken, &bytes[..bytes.len() - 200]).unwrap();
    let refused = site.run(&["replay", text(&broken)]);
    assert!(!refused.status.success() && said(&refused).contains("breaks off"), "{}", said(&refused));
}
