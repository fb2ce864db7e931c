//! Taking a backend out of service by `clairvoy drain`.

use clairvoy_tests::SpeedClass;
use reqwest::StatusCode;

use crate::support::{Chat, Load, Site, backend, model_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_may_be_stopped_once_its_streams_have_ended() {
    let [first, second] = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
    let site = Site::new();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{}\", \"{}\"] }}\n",
        first.address(),
        second.address(),
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 60), 10.0);
    let long = Load::start(Chat::new(site.gateway, "chat", 800), 2.0);
    load.more(40).await;

    let address = first.address();
    let (file, backend_address) = (site.config_file(), address.to_string());
    let arguments = ["drain", &backend_address, "--config", file.to_str().unwrap()];
    let done = tokio::task::block_in_place(|| site.run(&arguments));
    assert!(done.status.success(), "{done:?}");
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(said.contains("may be stopped"), "{said}");
    let progress = String::from_utf8(done.stderr).unwrap();
    assert!(progress.contains("requests run; they should have ended in "), "{progress}");
    let left = first.state().engine;
    assert_eq!((left.running, left.waiting), (0, 0));
    drop(first);
    load.more(20).await;
    load.end().await;
    long.end().await;

    let state = clairvoy.state().await.unwrap();
    assert!(backend(&state, address).is_some(), "it stays in its pool until it is removed");
    let done = tokio::task::block_in_place(|| {
        site.run(&["drain", "127.0.0.1:1", "--config", site.config_file().to_str().unwrap()])
    });
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(!done.status.success() && said.contains("no pool has a backend 127.0.0.1:1"), "{said}");
    assert_eq!(clairvoy.remove("a", address).await, StatusCode::ACCEPTED);
}
