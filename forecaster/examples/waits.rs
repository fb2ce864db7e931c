//! Judges the wait model on a record of arrivals of your own, against both baselines.
//!
//! `cargo run --release --example waits -- FILE.csv OUT.csv [--view router|control-plane] [--outcomes 600]`
//!
//! FILE.csv has a header with `server`, `t_s`, the state before the arrival (`waiting`, `running`, `kv_usage`,
//! `waiting_prompt_tokens`, `itl_s`, `gen_tps`, `prefill_tps`, `recent_wait_s`, `recent_ttft_s`), `prompt_tokens` and
//! the outcome `ttft_s`; the rows of a server are in order of arrival. OUT.csv gets the median and the bound of every
//! row, for states that are 0, 1 and 5 s old. Printed: WAPE, Spearman's rank correlation and coverage of the 90 % bound
//! on the last three fifths of each server's rows.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::time::Instant;

use clairvoy_forecaster::{
    WaitBacktest, WaitConfig, WaitRow, WaitScore, WaitState, WaitView, backtest_waits, last_observed_waits,
    little_waits, score_waits,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: waits FILE.csv OUT.csv [--view router|control-plane] [--outcomes N]";
    let (file, out) = (arguments.next().ok_or(usage)?, arguments.next().ok_or(usage)?);
    let (mut view, mut config) = (WaitView::Router, WaitConfig::default());
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match (name.as_str(), value.as_str()) {
            ("--view", "router") => view = WaitView::Router,
            ("--view", "control-plane") => view = WaitView::ControlPlane,
            ("--outcomes", count) => config.outcomes = count.parse()?,
            _ => return Err(format!("unknown option {name} {value}").into()),
        }
    }
    let servers = read(&file)?;
    let mut text = "server,row,age_s,ttft_s,ttft_q90_s\n".to_owned();
    println!("age   who              WAPE (worst)    Spearman (worst)  coverage");
    for age_seconds in [0.0, 1.0, 5.0] {
        let begun = Instant::now();
        let mut scores: BTreeMap<&str, Vec<WaitScore>> = BTreeMap::new();
        for (server, rows) in &servers {
            let said = backtest_waits(rows, &WaitBacktest { view, age_seconds, config });
            let pairs: Vec<(f64, f64)> = said.iter().map(Into::into).collect();
            for (row, (median, bound)) in pairs.iter().enumerate() {
                writeln!(text, "{server},{row},{age_seconds},{median},{bound}")?;
            }
            let alone = |values: Vec<f64>| values.into_iter().map(|value| (value, value)).collect::<Vec<_>>();
            let rivals = [
                ("1 model", pairs),
                ("2 last observed", alone(last_observed_waits(rows))),
                ("3 queue / rate", alone(little_waits(rows, age_seconds))),
            ];
            for (name, said) in rivals {
                scores.entry(name).or_default().extend(score_waits(rows, &said));
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        for (name, scores) in scores {
            let Some(mean) = WaitScore::mean(&scores) else { continue };
            let worst_wape = scores.iter().map(|score| score.wape).fold(0.0, f64::max);
            let worst_rank = scores.iter().map(|score| score.spearman).fold(1.0, f64::min);
            println!(
                "{age_seconds:>2} s  {name:<16} {:.4} ({worst_wape:.3})  {:.4} ({worst_rank:.3})    {:.3}",
                mean.wape, mean.spearman, mean.coverage
            );
        }
        println!("      {seconds:.2} s");
    }
    std::fs::write(out, text)?;
    Ok(())
}

fn read(path: &str) -> Result<BTreeMap<String, Vec<WaitRow>>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().ok_or("an empty file")?.split(',').collect();
    let mut servers: BTreeMap<String, Vec<WaitRow>> = BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |name: &str| -> Result<&str, String> {
            let index =
                header.iter().position(|column| *column == name).ok_or(format!("no column {name}"))?;
            fields.get(index).copied().ok_or(format!("not a row: {line}"))
        };
        let number = |name: &str| -> Result<f64, Box<dyn Error>> { Ok(field(name)?.parse()?) };
        let state = WaitState {
            waiting: Some(number("waiting")?),
            waiting_prompt_tokens: Some(number("waiting_prompt_tokens")?),
            running: Some(number("running")?),
            kv_used: Some(number("kv_usage")?),
            inter_token_seconds: Some(number("itl_s")?),
            output_tps: Some(number("gen_tps")?),
            prompt_tps: Some(number("prefill_tps")?),
            recent_wait_seconds: Some(number("recent_wait_s")?),
            recent_ttft_seconds: Some(number("recent_ttft_s")?),
            ..WaitState::default()
        };
        servers.entry(field("server")?.to_owned()).or_default().push(WaitRow {
            at_seconds: number("t_s")?,
            state,
            prompt_tokens: number("prompt_tokens")?,
            ttft_seconds: number("ttft_s")?,
        });
    }
    Ok(servers)
}
