use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;

use crate::config;
use crate::envoy::{
    BackendLog, EndpointLoad, GroupLoad, LaneCounts, LaneLog, LogSummary, ModelLoad, NodeLoad, Tokens,
    reporter,
};
use crate::telemetry::Sample;

use super::{Fleet, Source};

const BACKEND: &str = "127.0.0.1:1";

fn at(seconds: f64) -> DateTime<Utc> {
    DateTime::<Utc>::UNIX_EPOCH + TimeDelta::milliseconds((1_000_000.0 * 1000.0 + seconds * 1000.0) as i64)
}

fn fleet() -> Fleet {
    let text = format!(
        "forecast: {{ step: 10s, season: 60s, horizons: [10s] }}\nmodels: [{{ name: m, pools: [p] }}]\n\
         pools: [{{ name: p, backends: [\"{BACKEND}\"] }}]\n"
    );
    let mut fleet = Fleet::default();
    fleet.reconcile(&config::parse(&text).unwrap(), at(0.0));
    fleet.set_report_interval(2.0);
    fleet
}

fn report(node: &str, second: f64, requests: f64, interval_seconds: f64, in_progress: f64) -> NodeLoad {
    let load = ModelLoad { requests, dropped: 0.0, interval_seconds };
    NodeLoad {
        zone: None,
        node_id: node.to_owned(),
        at: at(second),
        models: BTreeMap::from([("m".to_owned(), load)]),
        endpoints: vec![EndpointLoad { address: BACKEND.parse().unwrap(), in_progress, errors: 0.0 }],
        groups: vec![GroupLoad {
            model: "m".to_owned(),
            group: "g".to_owned(),
            requests,
            errors: 0.0,
            in_progress,
            interval_seconds,
        }],
    }
}

fn nodes(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn sample(second: f64, arrived: f64) -> Sample {
    Sample { at: at(second), backend: BACKEND.into(), interval_seconds: 1.0, arrived, ..Sample::default() }
}

/// Seconds of a fleet whose Envoys `a` and `b` send 4 and 6 requests each two seconds, and the steps that closed.
fn run(fleet: &mut Fleet, seconds: std::ops::Range<u32>, names: &[&str]) -> Vec<(i64, Option<f64>)> {
    let mut steps = Vec::new();
    for second in seconds.map(f64::from) {
        for name in names {
            let requests = if *name == "a" { 4.0 } else { 6.0 };
            if second % 2.0 == 0.0 {
                fleet.observe_load(&report(name, second, requests, 2.0, requests));
            }
        }
        fleet.look_at_reports(&nodes(names), at(second + 0.5));
        let closed = fleet.close_steps(at(second + 0.5));
        steps.extend(closed.into_iter().map(|(_, step)| (step.index - 100_000, step.requests_per_second)));
    }
    steps
}

fn known(steps: &[(i64, Option<f64>)]) -> Vec<(i64, f64)> {
    steps
        .iter()
        .filter_map(|(index, rate)| Some((*index, (rate.as_ref()? * 1000.0).round() / 1000.0)))
        .collect()
}

#[test]
fn two_envoys_are_one_demand_though_the_servers_are_silent() {
    let mut fleet = fleet();
    let steps = run(&mut fleet, 0..45, &["a", "b"]);
    assert_eq!(known(&steps), [(0, 5.0), (1, 5.0), (2, 5.0), (3, 5.0)], "{steps:?}");
    let demand = fleet.demand("m", at(45.0));
    assert_eq!(demand.source, Source::Envoys);
    assert!((demand.requests_per_second - 5.0).abs() < 1e-6, "{demand:?}");
    assert!(fleet.demand_is_complete("m", at(45.0)));
    assert_eq!(fleet.reports().in_progress(BACKEND.parse().unwrap()), Some(10.0));
    let group = fleet.reports().group("m", "g").unwrap();
    assert!((group.requests_per_second - 5.0).abs() < 1e-6, "{group:?}");
    assert_eq!((group.in_progress, group.errors_per_second), (10.0, 0.0));
}

#[test]
fn envoys_of_two_gateways_with_one_id_are_two() {
    let mut fleet = fleet();
    let [east, west] = ["east", "west"].map(|gateway| reporter(gateway, "a"));
    let running = |fleet: &Fleet| fleet.reports().in_progress(BACKEND.parse().unwrap());
    for second in (0..30).map(f64::from) {
        if second % 2.0 == 0.0 {
            fleet.observe_load(&report(&east, second, 4.0, 2.0, 4.0));
            fleet.observe_load(&report(&west, second, 6.0, 2.0, 6.0));
        }
        fleet.look_at_reports(&nodes(&["a"]), at(second + 0.5));
    }
    assert_eq!((running(&fleet), fleet.reports().reporters()), (Some(10.0), 2));
    let demand = fleet.demand("m", at(30.0));
    assert_eq!(demand.source, Source::Envoys);
    assert!((demand.requests_per_second - 5.0).abs() < 1e-6, "{demand:?}");
    // One of them goes: it is waited for, and then what the other one tells is all.
    for second in (30..80).map(f64::from) {
        if second % 2.0 == 0.0 {
            fleet.observe_load(&report(&east, second, 4.0, 2.0, 4.0));
        }
        fleet.look_at_reports(&nodes(&["a"]), at(second + 0.5));
        if second == 50.0 {
            assert_eq!(running(&fleet), None);
        }
    }
    assert_eq!((running(&fleet), fleet.reports().reporters()), (Some(4.0), 1));
}

#[test]
fn tokens_of_access_logs_go_before_those_that_the_servers_count() {
    let mut fleet = fleet();
    let output_tokens = |second: f64| Sample { output_tokens: 70.0, ..sample(second, 1.0) };
    for second in (0..20).map(f64::from) {
        fleet.observe(BACKEND.parse().unwrap(), output_tokens(second), at(second));
    }
    let demand = fleet.demand("m", at(20.0));
    assert_eq!((demand.tokens_source, demand.prompt_tokens_per_second), (Source::Servers, None));
    assert!((demand.tokens_per_second - 70.0).abs() < 1e-6, "{demand:?}");
    let tokens = Tokens { prompt: 3000.0, output: 500.0 };
    let backends = [(BACKEND.parse().unwrap(), BackendLog { tokens, ..BackendLog::default() })].into();
    fleet.observe_log(&LogSummary { backends, ..LogSummary::default() }, at(20.0));
    let demand = fleet.demand("m", at(20.5));
    assert_eq!((demand.tokens_source, demand.tokens_per_second), (Source::Envoys, 50.0));
    assert_eq!(demand.prompt_tokens_per_second, Some(300.0));
    assert_eq!(fleet.backend(BACKEND.parse().unwrap()).unwrap().gateway.tokens, tokens);
    assert_eq!(fleet.demand("m", at(60.0)).tokens_source, Source::Servers, "long ago");
}

#[test]
fn refused_requests_are_demand_whoever_counts() {
    let lanes = |batch, interactive| {
        let counts = |refused, dropped| LaneCounts { admitted: 0.0, refused, dropped };
        // One of the batch requests is dropped by the cluster, too.
        let log = LaneLog { batch: counts(batch, 1.0), interactive: counts(interactive, 1.0) };
        LogSummary { lanes: [("m".to_owned(), log)].into(), ..LogSummary::default() }
    };
    let mut fleet = fleet();
    let mut steps = Vec::new();
    for second in (0..40).map(f64::from) {
        fleet.observe(BACKEND.parse().unwrap(), sample(second, 2.0), at(second));
        fleet.observe_log(&lanes(3.0, 1.0), at(second));
        if second % 2.0 == 0.0 {
            // Two, and two a second that a cluster has dropped: Envoys report these.
            fleet.observe_load(&report("a", second, 8.0, 2.0, 0.0));
        }
        fleet.look_at_reports(&nodes(&["a"]), at(second + 0.5));
        steps.extend(fleet.close_steps(at(second + 0.6)));
    }
    let demand = fleet.demand("m", at(39.0));
    assert_eq!(demand.source, Source::Envoys);
    assert!((demand.requests_per_second - 6.0).abs() < 0.1, "{demand:?}");
    assert!((demand.admitted_rps() - 2.0).abs() < 0.1, "{demand:?}");
    let (_, last) = steps.last().unwrap();
    assert!((last.requests_per_second.unwrap() - 6.0).abs() < 0.1, "{steps:?}");

    let mut alone = self::fleet();
    for second in (0..40).map(f64::from) {
        alone.observe(BACKEND.parse().unwrap(), sample(second, 2.0), at(second));
        alone.observe_log(&lanes(3.0, 1.0), at(second));
        alone.close_steps(at(second + 0.6));
    }
    let demand = alone.demand("m", at(39.0));
    assert_eq!(demand.source, Source::Servers);
    assert!((demand.requests_per_second - 6.0).abs() < 0.1, "{demand:?}");
    assert!((demand.admitted_rps() - 2.0).abs() < 0.1, "{demand:?}");
}

#[test]
fn an_envoy_that_does_not_report_leaves_the_word_to_the_servers() {
    let mut fleet = fleet();
    run(&mut fleet, 0..30, &["a"]);
    for second in 30..=60 {
        fleet.observe(BACKEND.parse().unwrap(), sample(f64::from(second), 7.0), at(f64::from(second)));
        fleet.observe_load(&report("a", f64::from(second), 2.0, 1.0, 0.0));
        fleet.look_at_reports(&nodes(&["a", "mute"]), at(f64::from(second) + 0.5));
    }
    let demand = fleet.demand("m", at(60.0));
    assert_eq!(demand.source, Source::Servers);
    assert!((demand.requests_per_second - 7.0).abs() < 0.1, "{demand:?}");
    assert_eq!(fleet.reports().in_progress(BACKEND.parse().unwrap()), None);
}

#[test]
fn an_envoy_that_goes_is_waited_for_and_then_forgotten_with_what_it_had_running() {
    let mut fleet = fleet();
    run(&mut fleet, 0..30, &["a", "b"]);
    let steps = run(&mut fleet, 30..100, &["a"]);
    assert_eq!(fleet.reports().reporters(), 1);
    assert_eq!(fleet.reports().in_progress(BACKEND.parse().unwrap()), Some(4.0));
    assert_eq!(fleet.demand("m", at(100.0)).source, Source::Envoys);
    let known = known(&steps);
    assert_eq!(known.last(), Some(&(8, 2.0)), "{known:?}");
    assert!(!known.iter().any(|(index, _)| *index == 4), "while it was missed, nothing is known: {known:?}");
}

#[test]
fn requests_past_the_envoys_are_seen_by_the_servers() {
    let mut fleet = fleet();
    for second in 0..40 {
        fleet.observe(BACKEND.parse().unwrap(), sample(f64::from(second), 10.0), at(f64::from(second)));
        run(&mut fleet, second..second + 1, &["a"]);
    }
    let demand = fleet.demand("m", at(39.0));
    assert_eq!(demand.source, Source::Servers);
    assert!((demand.requests_per_second - 10.0).abs() < 0.5, "{demand:?}");
}

#[test]
fn requests_that_no_backend_took_are_demand() {
    let mut fleet = fleet();
    run(&mut fleet, 0..30, &["a"]);
    let unplaced = BTreeMap::from([("m".to_owned(), 30.0), ("unknown".to_owned(), 9.0)]);
    fleet.observe_log(&LogSummary { unplaced, ..LogSummary::default() }, at(28.0));
    let demand = fleet.demand("m", at(30.0));
    assert!((demand.requests_per_second - 5.0).abs() < 1e-6, "{demand:?}");
}

proptest! {
    /// Reports of any lengths, late, of several Envoys: the demand of a time is what was sent in it.
    #[test]
    fn nothing_is_counted_twice_or_lost(
        intervals in prop::collection::vec(prop::collection::vec((0.5..4.0f64, 0u32..50), 20..40), 1..4),
    ) {
        let mut reports = Vec::new();
        let mut begin = f64::INFINITY;
        for (node, intervals) in intervals.iter().enumerate() {
            let mut second = 0.1 * node as f64;
            for (interval, requests) in intervals {
                second += interval;
                reports.push(report(&format!("n{node}"), second, f64::from(*requests), *interval, 0.0));
            }
            begin = begin.min(second);
        }
        reports.sort_by_key(|report| report.at);
        let (mut fleet, mut sums) = (fleet(), BTreeMap::<i64, f64>::new());
        let names: BTreeSet<String> = (0..intervals.len()).map(|node| format!("n{node}")).collect();
        let mut coming = reports.iter().peekable();
        for tick in 0..(begin * 2.0) as u32 {
            let now = at(f64::from(tick) / 2.0);
            while let Some(report) = coming.next_if(|report| report.at <= now) {
                fleet.observe_load(report);
            }
            fleet.look_at_reports(&names, now);
            for (_, step) in fleet.close_steps(now) {
                if let Some(rate) = step.requests_per_second {
                    let before = sums.insert(step.index, rate * 10.0);
                    prop_assert_eq!(before, None, "a step is closed once");
                }
            }
        }
        for (index, sum) in sums {
            // The first step begins before anyone reported.
            let (from, to) = ((index - 100_000) as f64 * 10.0, (index - 99_999) as f64 * 10.0);
            if from < 10.0 {
                continue;
            }
            let within = |report: &NodeLoad| {
                let (load, end) = (report.models["m"], (report.at - at(0.0)).as_seconds_f64());
                let overlap = (end.min(to) - (end - load.interval_seconds).max(from)).max(0.0);
                load.requests * overlap / load.interval_seconds
            };
            let expected: f64 = reports.iter().map(within).sum();
            // A report is put at the millisecond, and those of 4 s may come after the step has settled.
            let late: f64 = reports.iter().filter(|report| report.models["m"].interval_seconds > 2.9)
                .map(within).sum();
            prop_assert!(sum <= expected + 0.5 && sum >= expected - late - 0.5, "{} {} {}", sum, expected, late);
        }
    }
}
