//! The records in `forecaster/data`; its README says where they are from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use clairvoy_forecaster::{Series, WaitRow, WaitState};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Length of a step of the demand records, in seconds.
pub(crate) const STEP_SECONDS: u32 = 600;

/// How a peer did on the demand record at one horizon.
#[derive(Debug, Deserialize)]
pub(crate) struct Peer {
    pub(crate) forecaster: String,
    pub(crate) horizon_s: u32,
    pub(crate) cwape: f64,
    pub(crate) mean_pinball: f64,
    pub(crate) cov90: f64,
    pub(crate) cov95: f64,
    pub(crate) cov95_err: f64,
}

/// How a policy did with the forecasts of a peer.
#[derive(Debug, Deserialize)]
pub(crate) struct PeerReplicas {
    pub(crate) forecaster: String,
    pub(crate) policy: String,
    pub(crate) quantile: Option<f64>,
    pub(crate) under: f64,
    pub(crate) over: f64,
}

#[derive(Deserialize)]
struct DemandRow {
    timestamp_s: u64,
    model: String,
    rps: Option<f64>,
}

#[derive(Deserialize)]
struct ServerRow {
    server: String,
    t_s: f64,
    waiting: f64,
    running: f64,
    kv_usage: f64,
    waiting_prompt_tokens: f64,
    itl_s: f64,
    gen_tps: f64,
    prefill_tps: f64,
    recent_wait_s: f64,
    recent_ttft_s: f64,
    prompt_tokens: f64,
    ttft_s: f64,
}

/// Returns the series of a demand record, in the order of the file.
pub(crate) fn demand(file: &str) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = Vec::new();
    for DemandRow { timestamp_s, model, rps } in rows(file)? {
        if series.last().is_none_or(|last| last.name != model) {
            series.push(Series { name: model, values: Vec::new() });
        }
        let Some(last) = series.last_mut() else { continue };
        let wanted = last.values.len() as u64 * u64::from(STEP_SECONDS);
        ensure!(timestamp_s == wanted, "{file}: {} has {timestamp_s} s in place of {wanted} s", last.name);
        last.values.push(rps);
    }
    Ok(series)
}

/// Returns the arrivals at each server of the wait record.
pub(crate) fn servers() -> Result<Vec<Vec<WaitRow>>> {
    let mut servers: BTreeMap<String, Vec<WaitRow>> = BTreeMap::new();
    for row in rows::<ServerRow>("server_wait_sim.csv")? {
        let state = WaitState {
            waiting: Some(row.waiting),
            waiting_prompt_tokens: Some(row.waiting_prompt_tokens),
            running: Some(row.running),
            kv_used: Some(row.kv_usage),
            inter_token_seconds: Some(row.itl_s),
            output_tps: Some(row.gen_tps),
            prompt_tps: Some(row.prefill_tps),
            recent_wait_seconds: Some(row.recent_wait_s),
            recent_ttft_seconds: Some(row.recent_ttft_s),
            ..WaitState::default()
        };
        servers.entry(row.server).or_default().push(WaitRow {
            at_seconds: row.t_s,
            state,
            prompt_tokens: row.prompt_tokens,
            ttft_seconds: row.ttft_s,
        });
    }
    Ok(servers.into_values().collect())
}

/// Returns the recorded figures of the peers.
pub(crate) fn peers() -> Result<Vec<Peer>> {
    rows("peers.csv")
}

/// Returns the recorded figures of policies with the forecasts of the peers.
pub(crate) fn peers_replicas() -> Result<Vec<PeerReplicas>> {
    rows("peers_replicas.csv")
}

fn rows<R: DeserializeOwned>(file: &str) -> Result<Vec<R>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(file);
    let mut reader =
        csv::Reader::from_path(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let rows = reader.deserialize().collect::<Result<Vec<R>, _>>();
    rows.with_context(|| format!("{} is not what it should be", path.display()))
}
