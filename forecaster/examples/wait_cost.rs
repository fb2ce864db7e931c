//! Measures what a wait model costs, on outcomes of a queue that comes and goes.
//!
//! `cargo run --release --example wait_cost`

use std::hint::black_box;
use std::time::Instant;

use clairvoy_forecaster::{WaitConfig, WaitModel, WaitQuery, WaitState, WaitTicket};

fn query(turn: u32) -> (WaitQuery, f64) {
    let waiting = (10.0 + 10.0 * (f64::from(turn) * 0.9).sin()).round();
    let running = 32.0 + 31.0 * (f64::from(turn) * 0.37).cos();
    let state = WaitState {
        waiting: Some(waiting),
        waiting_prompt_tokens: Some(400.0 * waiting),
        running: Some(running),
        kv_used: Some(running / 64.0),
        inter_token_seconds: Some(0.02 + 0.0005 * running),
        recent_ttft_seconds: Some(0.3 + 0.1 * waiting),
        ..WaitState::default()
    };
    let query =
        WaitQuery { state, now_seconds: f64::from(turn), prompt_tokens: Some(400.0), ..WaitQuery::default() };
    (query, (0.2 + 0.2 * waiting) * (1.0 + 0.2 * (f64::from(turn) * 2.3).sin()))
}

fn main() {
    println!("size of a ticket: {} bytes", size_of::<WaitTicket>());
    for outcomes in [600, 1000, 2000] {
        let mut model = WaitModel::new(WaitConfig { outcomes, ..WaitConfig::default() });
        let rounds = 10_000_u32;
        let mut tickets = Vec::with_capacity(rounds as usize);
        (0..3000).for_each(|turn| {
            let (query, ttft) = query(turn);
            let ticket = model.ask(&query);
            model.observe(&ticket, ttft, 1.0, query.now_seconds);
        });
        model.refit();
        let begun = Instant::now();
        (0..rounds).for_each(|turn| tickets.push(black_box(&model).ask(&query(turn).0)));
        let ask = begun.elapsed().as_secs_f64() / f64::from(rounds);
        let begun = Instant::now();
        for (turn, ticket) in (0..rounds).zip(&tickets) {
            model.observe(ticket, query(turn).1, 1.0, f64::from(turn));
        }
        let observe = begun.elapsed().as_secs_f64() / f64::from(rounds);
        let begun = Instant::now();
        (0..20).for_each(|_| model.refit());
        let refit = begun.elapsed().as_secs_f64() / 20.0;
        println!(
            "{outcomes} outcomes: ask {:.2} us, observe {:.2} us, refit {:.2} ms",
            1e6 * ask,
            1e6 * observe,
            1e3 * refit
        );
    }
}
