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

    // Nobody can be asked for what is pushed; it is no fault that nothing answers there.
    site.configure(&format!(
        "telemetry: {{ push: {{ http: 127.0.0.1:4318 }} }}\nmodels:\n  - {{ name: chat, pools: [a] }}\n\
         pools:\n  - {{ name: a, telemetry: push, backends: [\"{nobody}\"] }}\n"
    ));
    expect(0, &["1 backends push their telemetry", "pools: a", "results are √"]);

    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [\"{nobody}\"], \
         metrics_access: {{ token_env: NOBODY_SET_THIS }} }}\n"
    ));
    expect(1, &["metrics_access of pool a", "NOBODY_SET_THIS is not set", "results are ×"]);

    site.configure("models:\n  - { name: chat, pools: [] }\n");
    expect(1, &["× ", "models", "results are ×"]);
}

#[test]
fn backtest_judges_demand_and_gives_the_same_bytes_twice() {
    let site = Site::new();
    let series = site.path().join("demand.csv");
    let mut rows = "timestamp_s,model,rps\n".to_owned();
    for step in 0..480 {
        let hour = std::f64::consts::TAU * f64::from(step) / 48.0;
        for (model, level) in [("chat", 30.0), ("code", 5.0)] {
            // A gap of an hour in one of them.
            let rate = level * (2.0 + hour.sin()) + f64::from(step * 7 % 5);
            let rate =
                if model == "code" && (100..106).contains(&step) { String::new() } else { rate.to_string() };
            rows += &format!("{},{model},{rate}\n", 600 * step);
        }
    }
    std::fs::write(&series, rows).unwrap();
    let judge = |out: &str| {
        let out = site.path().join(out);
        let said = site.run(&[
            "backtest",
            "--series",
            series.to_str().unwrap(),
            "--season",
            "8h",
            "--horizons",
            "10m,1h",
            "--train",
            "240",
            "--out",
            out.to_str().unwrap(),
        ]);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        (String::from_utf8(said.stdout).unwrap(), std::fs::read_to_string(out).unwrap())
    };
    let (table, forecasts) = judge("first.csv");
    for words in ["2 series of 480 steps", "last value", "seasonal naive", "reactive", "hybrid, 0.9 bound"] {
        assert!(table.contains(words), "{words} is missing in:\n{table}");
    }
    assert_eq!(judge("second.csv"), (table, forecasts.clone()));
    let mut lines = forecasts.lines();
    assert_eq!(lines.next(), Some("model,origin_s,horizon_s,quantile,value"));
    let first: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(first[..4], ["chat", "144000", "600", "0.1"], "the first origin is known up to step 240");

    let wrong = site.run(&["backtest", "--series", series.to_str().unwrap(), "--column", "tps"]);
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(
        !wrong.status.success() && said.contains("no column `tps`; there are: timestamp_s, model, rps"),
        "{said}"
    );
}

#[test]
fn backtest_judges_waits() {
    let site = Site::new();
    let requests = site.path().join("requests.csv");
    let mut rows = "server,t_s,waiting,running,waiting_prompt_tokens,prompt_tokens,ttft_s\n".to_owned();
    for request in 0..600 {
        let waiting = (request / 20) % 7;
        let prompt = 100 + request * 37 % 400;
        let ttft = 0.05 + 0.0001 * f64::from(waiting * 300 + prompt);
        rows += &format!("a,{},{waiting},4,{},{prompt},{ttft}\n", f64::from(request) * 0.2, waiting * 300);
    }
    std::fs::write(&requests, rows).unwrap();
    let out = site.path().join("waits.csv");
    let said = site.run(&["backtest", "--waits", requests.to_str().unwrap(), "--out", out.to_str().unwrap()]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let table = String::from_utf8(said.stdout).unwrap();
    for words in ["router's view", "control plane's view", "last observed TTFT", "queue / completion rate"] {
        assert!(table.contains(words), "{words} is missing in:\n{table}");
    }
    let forecasts = std::fs::read_to_string(out).unwrap();
    assert!(forecasts.starts_with("server,row,age_s,ttft_s,ttft_q90_s\na,0,0,"));
    assert_eq!(forecasts.lines().count(), 1 + 3 * 600);
}
