//! What is told beside telemetry.

use super::*;

/// Two Envoys in two zones.
fn connected() -> Input {
    Input::Connected {
        nodes: ["envoy".to_owned(), "other".to_owned()].into(),
        report_seconds: 2,
        zones: ["eu/a", "eu/b"].map(|zone| (zone.parse().unwrap(), 1)).into(),
    }
}

/// What DNS, Envoys and a backend with a lease tell in a second.
pub(super) fn told(second: i64, now: DateTime<Utc>) -> Vec<Input> {
    let address = |last: u16| SocketAddr::from(([10, 0, 1, 1], last));
    let looked = |answer| {
        let asked = settings_with_dns().pool("b").and_then(|pool| pool.dns()).unwrap().clone();
        Input::Looked { at: now, looked: Looked { pool: "b".to_owned(), asked, answer, beyond: 0 } }
    };
    let mut inputs = Vec::new();
    match second {
        5 => inputs.push(looked(Answer::Backends([address(1), address(2), address(3)].into()))),
        90 => inputs.push(looked(Answer::Backends([address(1)].into()))),
        140 => inputs.push(looked(Answer::Failed(LookupFailure::NoSuchName("b.test.".to_owned())))),
        20 => inputs.push(connected()),
        100 => {
            let (pool, length) = ("a".to_owned(), TimeDelta::seconds(30));
            let order = Order::Lease { pool, address: address(9), length };
            inputs.push(Input::Order { at: now, order });
        }
        _ => {}
    }
    if second >= 22 && second % 2 == 0 {
        let load_of_model = ModelLoad { requests: 30.0, dropped: 0.0, interval_seconds: 2.0 };
        let endpoints = vec![EndpointLoad { address: address(1), in_progress: 3.0, errors: 1.0 }];
        let models = [("chat".to_owned(), load_of_model)].into();
        let groups = vec![GroupLoad {
            model: "chat".to_owned(),
            group: "a".to_owned(),
            requests: 30.0,
            errors: 1.0,
            in_progress: 3.0,
            interval_seconds: 2.0,
        }];
        let load = |node: &str, zone: &str, models| NodeLoad {
            node_id: node.to_owned(),
            zone: zone.parse().ok(),
            at: now,
            models,
            endpoints: endpoints.clone(),
            groups: groups.clone(),
        };
        let elsewhere = ModelLoad { requests: 10.0 + (second / 20) as f64, ..load_of_model };
        inputs.push(Input::Load(load("envoy", "eu/a", models)));
        inputs.push(Input::Load(load("other", "eu/b", [("chat".to_owned(), elsewhere)].into())));
    }
    if second >= 22 {
        let first_bytes = FirstBytes {
            arrived_at: now - TimeDelta::milliseconds(700),
            requests: 3.0,
            mean_seconds: 0.1 + 0.01 * (second % 7) as f64,
            p50_seconds: 0.1,
            p95_seconds: 0.3,
        };
        let log = BackendLog {
            requests: 4.0,
            errors: 1.0,
            responses: Responses { count: 3.0, sum_seconds: 9.0 },
            tokens: Tokens { prompt: 400.0, output: 90.0 },
            first_bytes: vec![first_bytes],
        };
        let shown = BackendLog { first_bytes: Vec::new(), ..log };
        let backends = [(BACKENDS[0].parse().unwrap(), log), (BACKENDS[1].parse().unwrap(), shown)].into();
        let unplaced = [("chat".to_owned(), 1.0)].into();
        let counts = |admitted, refused| LaneCounts { admitted, refused, dropped: 0.0 };
        let lanes = LaneLog { interactive: counts(3.0, 0.0), batch: counts(1.0, 2.0) };
        let lanes = [("chat".to_owned(), lanes)].into();
        inputs.push(Input::Log {
            at: now,
            summary: LogSummary { backends, unplaced, lanes, ..LogSummary::default() },
        });
    }
    inputs
}

pub(super) fn settings_with_dns() -> Config {
    config::parse(&format!(
        "forecast: {{ step: 10s, season: 20m, horizons: [10s, 20s, 60s] }}\n\
         models: [{{ name: chat, pools: [a, b], balance: {{ zone_preference: 1 }} }}]\npools:\n  \
         - {{ name: a, backends: {BACKENDS:?}, locality: {{ region: eu, zone: a }} }}\n  \
         - name: b\n    locality: {{ region: eu, zone: b }}\n    discovery: {{ hold: 20s, dns: {{ name: b.test., type: srv }} }}\n"
    ))
    .unwrap()
}
