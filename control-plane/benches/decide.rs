//! What a decision about shares costs, on one core: `cargo xtask bench decide`.

#[path = "../../forecaster/benches/forecast/figures.rs"]
mod figures;
#[path = "../../forecaster/benches/forecast/machine.rs"]
#[expect(dead_code, reason = "the other benchmark needs more of it")]
mod machine;
#[path = "../../forecaster/benches/forecast/options.rs"]
mod options;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use clap::Parser;
use criterion::Criterion;

use clairvoy::decide::{
    BackendInput, Law, Mix, ModelInput, Profile, Verdict, WeightState, capacity_shares, decide_weights,
};
use clairvoy::run::Rehearsal;
use clairvoy::telemetry::Sample;

use self::figures::{Measured, Section};
use self::options::Options;

const MODELS: usize = 500;
const BACKENDS: usize = 20;
const LARGE: usize = 10_000;

const MEASURED: [Measured; 5] = [
    (DECIDE, MANY, "500 models of 20 backends: shares of all", Some(0.05)),
    (DECIDE, MANY_BY_CAPACITY, "the same by capacity only", None),
    (DECIDE, ONE, "one model of 10,000 backends: its shares", Some(0.05)),
    (DECIDE, ONE_BY_CAPACITY, "the same by capacity only", None),
    (
        TICK,
        MANY,
        "500 models of 20 backends: a whole second of the controller, without its input and output",
        None,
    ),
];
const DECIDE: &str = "decide";
const TICK: &str = "tick";
const MANY: &str = "500_models_of_20_backends";
const MANY_BY_CAPACITY: &str = "500_models_of_20_backends_by_capacity";
const ONE: &str = "one_model_of_10000_backends";
const ONE_BY_CAPACITY: &str = "one_model_of_10000_backends_by_capacity";

/// Measures what a decision about shares costs, on one core.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> Result<()> {
    let section = Section {
        heading: "What decisions cost",
        bench: "decide",
        unit: ", ms",
        measured: &MEASURED,
        time: |seconds| format!("{:.2}", 1e3 * seconds),
        goal: |seconds| format!("{:.0}", 1e3 * seconds),
    };
    Args::parse().options.run(&section, |criterion| {
        decisions(criterion);
        ticks(criterion);
        Ok(())
    })
}

/// A backend of one of four classes, with some requests in flight; now and then one runs slow.
fn backend(number: usize) -> BackendInput {
    let class = number % 4;
    let slower = 1.0 + class as f64;
    let port = u16::try_from(number % 60_000).unwrap_or_default();
    let host = Ipv4Addr::new(10, 0, u8::try_from(number / 60_000).unwrap_or_default(), 1);
    BackendInput {
        address: SocketAddr::from((host, port)),
        pool: format!("pool-{class}"),
        zone: "region/zone".to_owned(),
        profile: Some(Profile {
            fixed_seconds: 0.01 * slower,
            per_sequence_seconds: 0.000_1 * slower,
            per_prompt_token_seconds: 0.000_02 * slower,
            per_kv_token_seconds: 0.000_000_02 * slower,
            max_sequences: Some(128.0),
            kv_tokens: Some(200_000.0),
            token_budget: Some(8192.0),
        }),
        capacity_rps: None,
        at_ease_rps: None,
        slowdown: if number.is_multiple_of(97) { 4.0 } else { 1.0 },
        in_flight: Some((number * 31 % 80) as f64),
        age_seconds: Some(0.5),
        verdict: Verdict::Usual,
        warmed: 1.0,
        sign: None,
        price_per_hour: None,
    }
}

fn model(from: usize, backends: usize) -> ModelInput {
    ModelInput {
        arrivals_rps: 6.0 * backends as f64,
        mix: Mix::of(1000.0, 200.0),
        envoys: 16,
        steered_part: 1.0,
        observed_seconds: 3600.0,
        backends: (from..from + backends).map(backend).collect(),
    }
}

/// What the law remembers once it has decided for a while.
fn settled(model: &ModelInput, now: DateTime<Utc>) -> WeightState {
    let decide = |state: WeightState, _| decide_weights(model, &state, &Law::default(), now).state;
    (0..20).fold(WeightState::default(), decide)
}

fn decisions(criterion: &mut Criterion) {
    let (law, now) = (Law::default(), DateTime::UNIX_EPOCH);
    for (name, by_capacity, models, backends) in
        [(MANY, MANY_BY_CAPACITY, MODELS, BACKENDS), (ONE, ONE_BY_CAPACITY, 1, LARGE)]
    {
        // Each is another one, so that the cache holds no more of them than it would.
        let fleet: Vec<(ModelInput, WeightState)> = (0..models)
            .map(|number| {
                let model = model(number * backends, backends);
                let state = settled(&model, now);
                (model, state)
            })
            .collect();
        let mut group = criterion.benchmark_group(DECIDE);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for (model, state) in &fleet {
                    black_box(decide_weights(black_box(model), black_box(state), &law, now));
                }
            });
        });
        group.bench_function(by_capacity, |bencher| {
            bencher.iter(|| {
                for (model, _) in &fleet {
                    black_box(capacity_shares(black_box(model)));
                }
            });
        });
        group.finish();
    }
}

/// A second of the controller: everything that is looked at for 500 models of 20 backends in four pools each, with telemetry of
/// all of them since the last one.
fn ticks(criterion: &mut Criterion) {
    let mut file = String::from("models:\n");
    let mut pools = String::from("pools:\n");
    for model in 0..MODELS {
        let of_model: Vec<String> = (0..4).map(|class| format!("m{model}-{class}")).collect();
        file += &format!("- {{ name: m{model}, pools: [{}] }}\n", of_model.join(", "));
        for (class, pool) in of_model.iter().enumerate() {
            let addresses = (0..BACKENDS / 4).map(|place| format!("\"{}\"", address(model, class, place)));
            let addresses = addresses.collect::<Vec<_>>().join(", ");
            pools += &format!("- {{ name: {pool}, backends: [{addresses}] }}\n");
        }
    }
    let start = DateTime::UNIX_EPOCH + TimeDelta::days(10_000);
    let config = clairvoy::config::parse(&(file + &pools)).unwrap_or_else(|error| panic!("{error}"));
    let mut core = Rehearsal::new(config, start);
    let mut second = 0;
    let mut pass = |core: &mut Rehearsal| {
        second += 1;
        let now = start + TimeDelta::seconds(second);
        for number in 0..MODELS * BACKENDS {
            core.observe(sample(number, second, now), now);
        }
        now + TimeDelta::milliseconds(100)
    };
    for _ in 0..60 {
        let now = pass(&mut core);
        core.tick(now);
    }
    let mut group = criterion.benchmark_group(TICK);
    group.warm_up_time(Duration::from_secs(1));
    group.bench_function(MANY, |bencher| {
        bencher.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            for _ in 0..times {
                let now = pass(&mut core);
                let begin = Instant::now();
                black_box(core.tick(now));
                spent += begin.elapsed();
            }
            spent
        });
    });
    group.finish();
}

fn address(model: usize, class: usize, place: usize) -> SocketAddr {
    let number = model * BACKENDS + class * (BACKENDS / 4) + place;
    let host = Ipv4Addr::from(0x0A00_0001 + u32::try_from(number).unwrap_or_default());
    SocketAddr::from((host, 8000))
}

/// A second of a backend in the middle of its load, which wavers.
fn sample(number: usize, second: i64, now: DateTime<Utc>) -> Sample {
    let class = (number % BACKENDS) / (BACKENDS / 4);
    let wave = f64::from(u32::try_from((number * 31 + second as usize * 7) % 40).unwrap_or_default());
    let running = 20.0 + wave;
    let slower = 1.0 + class as f64;
    let iterations = 1.0 / (slower * (0.01 + 0.000_2 * running));
    Sample {
        at: now,
        backend: address(number / BACKENDS, class, number % (BACKENDS / 4)).to_string().into(),
        interval_seconds: 1.0,
        running: Some(running),
        queue_depth: Some(0.0),
        kv_used: Some(0.4),
        arrived: running * iterations / 200.0,
        completed: running * iterations / 200.0,
        prompt_tokens: 5.0 * running * iterations,
        output_tokens: running * iterations,
        ..Sample::default()
    }
}
