//! Faults of the operator: they are named, and harm nothing that runs.

use std::net::TcpListener;

use clairvoy_tests::SpeedClass;
use reqwest::{Method, StatusCode};

use crate::support::{Chat, Site, client, free_address, model_server, until};

fn refused(site: &Site) -> String {
    let config = site.config_file();
    let output = site.run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn every_fault_of_a_file_is_named_with_its_line() {
    let site = Site::new();
    site.write(
        "models:\n\
        \x20 - { name: chat, pools: [a, nowhere] }\n\
         pools:\n\
        \x20 - name: a\n\
        \x20   capacity_rps: -1\n\
        \x20   backends: [\"127.0.0.1:9001\", \"127.0.0.1:9001\"]\n\
         balance: { smoothing: 7 }\n",
    );
    let said = refused(&site);
    let faults =
        [("no pool `nowhere`", 2), ("capacity_rps", 5), ("already in pool `a`", 6), ("smoothing", 7)];
    for (words, line) in faults {
        assert!(said.contains(words) && said.contains(&format!("line {line}")), "{words}, {line}: {said}");
    }

    site.write("modles: []\nforecast: { step: tomorrow }\nlisten: { colour: red }\n");
    let said = refused(&site);
    for (words, line) in [("`modles`", 1), ("tomorrow", 2), ("`colour`", 3)] {
        assert!(said.contains(words) && said.contains(&format!("line {line}")), "{words}, {line}: {said}");
    }
}

#[test]
fn a_missing_file_and_a_taken_port_are_named() {
    let site = Site::new();
    assert!(refused(&site).contains("clairvoy.yaml"));

    let neighbour = TcpListener::bind(site.api).unwrap();
    site.configure("");
    let said = refused(&site);
    assert!(said.contains(&site.api.to_string()) && said.contains("listen.api"), "{said}");
    drop(neighbour);
    let _neighbour = TcpListener::bind(site.xds).unwrap();
    let said = refused(&site);
    assert!(said.contains(&site.xds.to_string()) && said.contains("listen.xds"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_faulty_change_is_refused_and_the_old_configuration_stays() {
    let server = model_server("chat", SpeedClass::Fast);
    let site = Site::new();
    let good = format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\"] }}\n",
        server.address()
    );
    site.configure(&good);
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let chat = Chat::new(site.gateway, "chat", 3);
    chat.stream().await.unwrap();

    site.configure(&good.replace("pools: [a]", "pools: [b]"));
    clairvoy.event("there is no pool `b`").await;
    site.write("");
    clairvoy.event("needs a restart").await;
    chat.stream().await.unwrap();
    let state = clairvoy.state().await.unwrap();
    assert_eq!((state.models.len(), state.backends.len()), (1, 1));

    site.configure(&good.replace("name: chat", "name: renamed"));
    clairvoy.event("the configuration was reloaded").await;
    until("the new name is known", 20, async || {
        let list = client().get(format!("http://{}/v1/models", site.gateway)).send().await.unwrap();
        let list = list.text().await.unwrap();
        if list.contains("renamed") { Ok(()) } else { Err(list) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unreachable_database_keeps_no_envoy_waiting_for_long() {
    let server = model_server("chat", SpeedClass::Fast);
    let mut site = Site::new();
    let nobody = free_address();
    site.set("DATABASE_URL", &format!("postgres://anna:hunter2@{nobody}/fleet"));
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\"] }}\n",
        server.address()
    ));
    let mut clairvoy = site.launch();
    until("it lives", 30, async || {
        let answer = clairvoy.request(Method::GET, "/healthz").send().await;
        answer.and_then(reqwest::Response::error_for_status).map(drop).map_err(|error| error.to_string())
    })
    .await;
    let early = clairvoy.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(early.status(), StatusCode::SERVICE_UNAVAILABLE, "first it hopes for what it knew");

    clairvoy.wait_until_ready().await;
    let _envoy = site.envoy().await;
    Chat::new(site.gateway, "chat", 3).stream().await.unwrap();
    clairvoy.event("the database is away").await;
    let history = clairvoy.request(Method::GET, "/api/v1/demand?model=chat").send().await.unwrap();
    assert_eq!(history.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(history.text().await.unwrap().contains("database"));
    assert!(!clairvoy.log().contains("hunter2"), "the password is in no log:\n{}", clairvoy.log());
    assert!(clairvoy.log().contains(&nobody.to_string()), "the log names the database:\n{}", clairvoy.log());
    assert!(clairvoy.stop().success());
}
