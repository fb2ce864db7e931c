//! Clairvoy itself is killed. Clients notice nothing, and Envoy is not told again what it knows.

use chrono::{DateTime, TimeDelta, Utc};
use clairvoy::view::State;
use clairvoy_tests::{Faults, SpeedClass};
use reqwest::StatusCode;

use crate::support::{Chat, Clairvoy, Host, Load, Site, backend, holds_for, model_server, until};

/// The newest decision, and the smoothed share of each backend.
type Seen = (Option<String>, Vec<f64>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clairvoy_breaks_no_stream_and_comes_back_with_what_it_knew() {
    let servers = [(); 3].map(|()| model_server("chat", SpeedClass::Fast));
    let registered = servers[2].address();
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a, b] }}\n\
         pools:\n  - {{ name: a, backends: [\"{}\", \"{}\"] }}\n  - {{ name: b }}\n",
        servers[0].address(),
        servers[1].address(),
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 5.0);
    assert_eq!(clairvoy.register("b", registered).await, StatusCode::CREATED);
    let serves = |host: Option<&Host>| host.is_some_and(|host| host.requests > 2);
    envoy.host_where("the registered one serves", "chat", registered, serves).await;
    // A registration that was answered survives once it is written; that takes a moment.
    until("telemetry is stored", 30, async || match clairvoy.rows().await {
        Ok(rows) if rows > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    clairvoy.kill();
    load.more(10).await;
    let clairvoy = site.serve().await;
    clairvoy.in_sync().await;
    let state = clairvoy.state().await.unwrap();
    assert!(backend(&state, registered).is_some(), "{:#?}", state.backends);
    load.more(10).await;
    assert!(envoy.hosts("chat").await.contains_key(&registered));
    load.end().await;

    // An idle fleet changes nothing, so there is nothing to send after the next restart either. It is at rest when the wait
    // models have learned of the last requests, which they do up to 10 s later, and the smoothed shares have followed: shares
    // as published stand still before that, too.
    let mut unchanged: Option<(Seen, DateTime<Utc>)> = None;
    until("the weights are at rest", 90, async || {
        let state = clairvoy.state().await?;
        let idle = state.models[0].demand_rps == 0.0;
        let decision = state.decisions.first().map(|decision| decision.id.clone());
        let shares: Vec<f64> = state.backends.iter().map(|backend| backend.share).collect();
        let stands = |before: &[f64]| {
            before.len() == shares.len()
                && before.iter().zip(&shares).all(|(before, share)| (before - share).abs() < 0.002)
        };
        let (seen, since) = match unchanged.take() {
            Some((before, since)) if before.0 == decision && stands(&before.1) => (before, since),
            _ => ((decision, shares.clone()), state.now),
        };
        unchanged = Some((seen, since));
        let rested = state.now - since >= TimeDelta::seconds(12);
        if idle && rested { Ok(()) } else { Err(format!("{shares:?}, {:#?}", state.models)) }
    })
    .await;
    let decisions = clairvoy.state().await.unwrap().totals.decisions;
    holds_for("an idle fleet keeps its weights", 4.0, async || {
        let state = clairvoy.state().await?;
        let now = state.totals.decisions;
        let newest = || format!("{now} decisions, {decisions} before: {:#?}", state.decisions.first());
        if now == decisions { Ok(()) } else { Err(newest()) }
    })
    .await;
    clairvoy.kill();
    let clairvoy = site.serve().await;
    clairvoy.in_sync().await;
    holds_for("nothing is sent that Envoy has", 8.0, async || {
        let state = clairvoy.state().await?;
        match state.proxies.as_slice() {
            [proxy] if proxy.resources_sent == 0 && proxy.nacks == 0 => Ok(()),
            other => Err(format!("{other:#?}, decisions: {:#?}", state.decisions)),
        }
    })
    .await;
    assert!(clairvoy.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_backend_is_taken_away_while_clairvoy_has_not_looked_at_it_yet() {
    let servers = [(); 4].map(|()| model_server("chat", SpeedClass::Fast));
    // The metrics of one can never be read, those of the others seldom.
    servers[3].set_faults(Faults { metrics_hang: true, ..Faults::default() }).unwrap();
    let site = Site::new();
    let list = servers.each_ref().map(|server| format!("\"{}\"", server.address())).join(", ");
    site.configure(&format!(
        "telemetry: {{ interval: 5s }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{list}] }}\n"
    ));
    let mut clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let all_serve = async || {
        let hosts = envoy.hosts("chat").await;
        let serving = hosts.values().filter(|host| host.health == "HEALTHY").count();
        if serving == 4 { Ok(()) } else { Err(format!("{hosts:#?}")) }
    };
    // It has what it asked for before it asks for the endpoints.
    until("all backends are there", 20, all_serve).await;
    for restarts in [true, false] {
        clairvoy.in_sync().await;
        holds_for("all backends stay", 7.0, all_serve).await;
        if restarts {
            clairvoy.kill();
            clairvoy = site.serve().await;
        }
    }
}

/// Profiles of pools in the database.
async fn saved_profiles(clairvoy: &Clairvoy) -> Result<i64, sqlx::Error> {
    let mut database = clairvoy.database().await?;
    let count = "SELECT count(*) FROM model_state WHERE kind = 'profile' AND key = 'a'";
    sqlx::query_scalar(count).fetch_one(&mut database).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_engines_cost_is_known_after_a_restart_before_they_have_had_a_request() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let [first, second] = servers.each_ref().map(|server| server.address());
    let site = Site::new();
    // Five scrapes a second, so that what takes many of them is over soon.
    site.configure(&format!(
        "telemetry: {{ interval: 200ms, deadline: 200ms }}\n\
         models:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - {{ name: a, backends: [\"{first}\", \"{second}\"] }}\n"
    ));
    let clairvoy = site.serve().await;
    let envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 12.0);
    until("the profile of the pool is in the database", 60, async || match saved_profiles(&clairvoy).await {
        Ok(saved) if saved > 0 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    load.end().await;

    // Neither requests nor what an Envoy has yet to log of them tell the next one anything.
    drop(envoy);
    clairvoy.kill();
    let clairvoy = site.serve().await;
    let known = |state: &State| {
        state.backends.len() == 2 && state.backends.iter().all(|backend| backend.profile.is_some())
    };
    let state = clairvoy.state_where("what their iterations cost is known", known).await;
    for backend in &state.backends {
        let profile = backend.profile.as_ref().unwrap();
        assert_eq!(profile.observations, 0.0, "it is of the last run: {backend:#?}");
        // Fast servers: 8 ms an iteration, and a little for what is in it.
        assert!((0.005..0.014).contains(&profile.fixed_seconds), "{profile:?}");
    }
}
