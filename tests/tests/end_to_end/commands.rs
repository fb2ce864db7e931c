//! The commands beside `serve`.

use clairvoy_tests::SpeedClass;

use crate::support::{Site, bootstrap, free_address, model_server, validate};

#[test]
fn envoy_accepts_every_bootstrap() {
    let mut site = Site::new();
    site.set("FLEET_TOKEN", "a token of some length");
    for arguments in [
        vec!["--node-cluster", "edge-a", "--region", "north", "--zone", "one"],
        vec!["--token-env", "FLEET_TOKEN"],
        vec!["--node-id", "odd: \"name\" #1"],
        vec!["--zone", "1e3"],
    ] {
        let output = validate(&bootstrap(&site, &arguments));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let by_name = site.run(&["bootstrap", "--xds", "clairvoy.example:18000", "--admin", "none"]);
    assert!(by_name.status.success());
    let path = site.path().join("by-name.yaml");
    std::fs::write(&path, by_name.stdout).unwrap();
    assert!(validate(&path).status.success());

    for (arguments, words) in [
        (["--token-env", "NO_SUCH"], "NO_SUCH"),
        (["--xds", "here"], "HOST:PORT"),
        (["--admin", "x"], "\"x\""),
    ] {
        let output = site.run(&[["bootstrap"].as_slice(), &arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_tells_what_is_good_and_what_is_not() {
    let server = model_server("chat", SpeedClass::Fast);
    let site = Site::new();
    let fleet = |address: String| {
        format!(
            "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{address}\"] }}\n"
        )
    };
    let config = site.config_file();
    let check = || {
        let output = site.run(&["check", "--config", config.to_str().unwrap()]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let expect = |code: i32, words: &[&str]| {
        let (found, said) = tokio::task::block_in_place(check);
        assert_eq!(found, Some(code), "{said}");
        for words in words {
            assert!(said.contains(words), "{words} is missing in:\n{said}");
        }
    };

    site.configure(&fleet(server.address().to_string()));
    expect(
        0,
        &[
            "is valid: 1 models, 1 pools, 1 backends",
            "1 of 1 backends",
            "migrations applied",
            "results are √",
        ],
    );

    let clairvoy = site.serve().await;
    expect(0, &["in use by a running Clairvoy", "results are √"]);
    assert!(clairvoy.stop().success());

    let nobody = free_address().to_string();
    site.configure(&fleet(nobody.clone()));
    expect(1, &["0 of 1 backends", &nobody, "results are ×"]);

    site.configure("models:\n  - { name: chat, pools: [] }\n");
    expect(1, &["× ", "models", "results are ×"]);
}
