//! What a file may say: an export comes from elsewhere, and numbers that a running Clairvoy never has must not stop a replay.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::config::{self, Config};
use crate::envoy::LogSummary;
use crate::run::{Input, Order};
use crate::telemetry::Sample;

/// Times of an export lie between 1970 and 2200.
const LATEST_SECONDS: i64 = 7_258_118_400;
/// Envoys are asked to report more often than this.
const LONGEST_REPORT_SECONDS: u64 = 86_400;
/// The longest time that a setting or an order may name: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Whether a time is one that telemetry may have.
pub(super) fn time(at: DateTime<Utc>) -> Result<(), String> {
    if (0..LATEST_SECONDS).contains(&at.timestamp()) {
        return Ok(());
    }
    Err(format!("{} is no time of an export", at.to_rfc3339()))
}

/// Whether all times in a value are.
pub(super) fn times(value: &Value) -> Result<(), String> {
    match value {
        // As they will be read: years of more than four digits are times, too.
        Value::String(text) => text.parse::<DateTime<Utc>>().map_or(Ok(()), time),
        Value::Array(list) => list.iter().try_for_each(times),
        Value::Object(fields) => fields.values().try_for_each(times),
        _ => Ok(()),
    }
}

pub(super) fn sample(taken_at: DateTime<Utc>, sample: &Sample) -> Result<(), String> {
    time(taken_at)?;
    time(sample.at)
}

pub(super) fn input(input: &Input) -> Result<(), String> {
    match input {
        Input::Sample { at, sample: taken } => sample(*at, taken),
        Input::Tick { at } | Input::Looked { at, .. } => time(*at),
        Input::Load(load) => time(load.at),
        Input::Log { at, summary } => time(*at).and_then(|()| log(summary)),
        Input::Order { at, order } => time(*at).and_then(|()| of_order(order)),
        Input::Config { at, config } => time(*at).and_then(|()| settings(config)),
        Input::Connected { report_seconds, .. } => {
            let fits = *report_seconds <= LONGEST_REPORT_SECONDS;
            fits.then_some(()).ok_or_else(|| format!("Envoys that report every {report_seconds} s"))
        }
        Input::Limits { .. } | Input::Failure { .. } | Input::Undelivered { .. } => Ok(()),
    }
}

fn log(summary: &LogSummary) -> Result<(), String> {
    let backends = summary.backends.values();
    backends.flat_map(|log| &log.first_bytes).try_for_each(|shown| time(shown.arrived_at))
}

fn of_order(order: &Order) -> Result<(), String> {
    match order {
        Order::Lease { length, .. } => {
            let longest = TimeDelta::from_std(LONGEST).unwrap_or_default();
            let fits = (TimeDelta::zero()..=longest).contains(length);
            fits.then_some(()).ok_or_else(|| format!("a lease of {} s", length.num_seconds()))
        }
        Order::Learn { histories } => {
            let fits = |(_, first, rates): &(String, i64, Vec<Option<f64>>)| {
                let steps = i64::try_from(rates.len()).ok().and_then(|steps| first.checked_add(steps));
                *first >= 0 && steps.is_some_and(|end| end <= LATEST_SECONDS)
            };
            let fits = histories.iter().all(fits);
            fits.then_some(()).ok_or_else(|| "imported demand of no time of an export".to_owned())
        }
        Order::Register { .. } | Order::Drain { .. } | Order::Remove { .. } | Order::ResumeCanary { .. } => {
            Ok(())
        }
    }
}

/// Whether a configuration is one that Clairvoy would run with, as far as a file has it.
pub(super) fn settings(config: &Config) -> Result<(), String> {
    let spans = config.pools.iter().flat_map(|pool| {
        [
            ("cold_start", pool.replicas.cold_start),
            ("scale_down_after", pool.replicas.scale_down_after),
            ("hold", pool.discovery.hold),
        ]
    });
    let of_all = [("drain_time", config.balance.drain_time), ("refit_every", config.forecast.refit_every)];
    if let Some((name, span)) = spans.chain(of_all).find(|(_, span)| span.0 > LONGEST) {
        return Err(format!("`{name}` is {span}, more than ten years"));
    }
    let mut whole = config.clone();
    // Where telemetry is pushed to is not in a file.
    whole.telemetry.push.http.get_or_insert(([127, 0, 0, 1], 1).into());
    config::check(&whole)
}
