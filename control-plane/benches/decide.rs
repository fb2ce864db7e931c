//! What a decision about shares costs, on one core: `cargo bench -p clairvoy --bench decide`.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chrono::{DateTime, Utc};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

use clairvoy::decide::{
    BackendInput, Law, Mix, ModelInput, Profile, Verdict, WeightState, capacity_shares, decide_weights,
};

const MODELS: usize = 500;
const BACKENDS: usize = 20;
const LARGE: usize = 10_000;

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
        slowdown: if number.is_multiple_of(97) { 4.0 } else { 1.0 },
        in_flight: Some((number * 31 % 80) as f64),
        age_seconds: Some(0.5),
        sent_since: None,
        completed_since: None,
        verdict: Verdict::Usual,
        warmed: 1.0,
        sign: None,
    }
}

fn model(backends: usize) -> ModelInput {
    ModelInput {
        arrivals_rps: 6.0 * backends as f64,
        mix: Mix::of(1000.0, 200.0),
        envoys: 16,
        observed_seconds: 3600.0,
        backends: (0..backends).map(backend).collect(),
    }
}

/// What the law remembers once it has decided for a while.
fn settled(model: &ModelInput, now: DateTime<Utc>) -> WeightState {
    let decide = |state: WeightState, _| decide_weights(model, &state, &Law::default(), now).state;
    (0..20).fold(WeightState::default(), decide)
}

fn decisions(criterion: &mut Criterion) {
    let (law, now) = (Law::default(), DateTime::UNIX_EPOCH);
    for (name, models, backends) in
        [("500_models_of_20_backends", MODELS, BACKENDS), ("one_model_of_10000_backends", 1, LARGE)]
    {
        let model = model(backends);
        let state = settled(&model, now);
        let mut group = criterion.benchmark_group("decide");
        group.measurement_time(Duration::from_secs(5)).sample_size(30);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for _ in 0..models {
                    black_box(decide_weights(black_box(&model), black_box(&state), &law, now));
                }
            });
        });
        group.bench_function(format!("{name}_by_capacity"), |bencher| {
            let capacities =
                |model: ModelInput| (0..models).for_each(|_| drop(black_box(capacity_shares(&model))));
            bencher.iter_batched(|| model.clone(), capacities, BatchSize::LargeInput);
        });
        group.finish();
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
