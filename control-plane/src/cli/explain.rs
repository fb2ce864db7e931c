//! `clairvoy explain`: why a backend had its share; why requests for a model were refused, and why its canary stepped back.

mod acknowledgement;
mod canary;
mod shed;
mod spare;
mod zone;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::config::{self, Config};
use crate::decide::{Clamp, Terms, Zone};
use crate::run::{Explained, Overrides, database_settings, explain};
use crate::store::{AcknowledgementRow, DecisionRow, Store};

use super::ConfigFile;
use super::export::time;
use acknowledgement::acknowledged;
use zone::Zoned;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A backend, as `ip:port`: why it had its share. Or a model: why requests for it were refused, or
    /// not any more, and why its canary stepped back.
    #[arg(value_name = "BACKEND|MODEL")]
    what: String,
    /// At this time: such as 2026-11-20T09:00:00Z, or how long ago, such as 2h. Can be given several times.
    #[arg(long, value_name = "TIME", default_value = "0s")]
    at: Vec<String>,
    /// As the Envoys of this zone were told it: `region/zone`.
    #[arg(long, value_name = "ZONE")]
    zone: Option<Zone>,
    /// Print JSON, a line for each time.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let now = Utc::now();
    let times: Vec<DateTime<Utc>> =
        arguments.at.iter().map(|text| time(text, now, "--at")).collect::<anyhow::Result<_>>()?;
    let overrides = Overrides {
        data_dir: arguments.file.data_dir,
        database_url: arguments.file.database_url,
        ..Overrides::default()
    };
    let config = overrides.apply(config::load(&arguments.file.config)?);
    config::check(&config).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let Ok(backend) = arguments.what.parse::<SocketAddr>() else {
        runtime.block_on(of_model(&config, &arguments.what, &times, arguments.json))?;
        return Ok(ExitCode::SUCCESS);
    };
    let in_force = runtime.block_on(in_force(&config, &times))?;
    for (at, decisions) in times.iter().zip(&in_force) {
        let found = found(backend, *at, &decisions.shares);
        if found.is_err()
            && let Some(text) = spare::explained(backend, &decisions.spare, arguments.json)
        {
            println!("{text}");
            continue;
        }
        let (row, explained) = found?;
        let told = decisions.acknowledgement(row);
        let zoned = match &arguments.zone {
            Some(zone) => Some(Zoned::find(zone, backend, &row.model, decisions)?),
            None => None,
        };
        if arguments.json {
            println!("{}", as_json(backend, row, &explained, told, zoned.as_ref()));
        } else {
            println!(
                "{}",
                as_text(backend, row, &explained, &acknowledged(row, told, now), zoned.as_ref(), now)
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what was decided about a model as a whole, at each time: what is refused, and its canary.
async fn of_model(
    config: &Config,
    model: &str,
    times: &[DateTime<Utc>],
    as_lines: bool,
) -> anyhow::Result<()> {
    if config.models.iter().all(|known| known.name != model) {
        bail!("{model} is neither a backend, as `ip:port`, nor a model");
    }
    let store = Store::open_as_it_is(database_settings(config)).await?;
    for at in times {
        let (canary, shed) =
            (store.canary_in_force(model, *at).await?, store.shedding_in_force(model, *at).await?);
        if canary.is_none() && shed.is_none() {
            bail!(
                "no decision is kept by which requests for {model} were refused, or its canary stepped back, at {} or before",
                at.to_rfc3339()
            );
        }
        if let Some(row) = canary {
            println!("{}", canary::explained(&row, as_lines)?);
        }
        if let Some(row) = shed {
            println!("{}", shed::explained(&row, as_lines)?);
        }
    }
    store.close().await?;
    Ok(())
}

/// The decisions that were in force at a time, one a model at most.
#[derive(Debug, Default)]
struct Decisions {
    /// About shares.
    shares: Vec<DecisionRow>,
    /// About what the Envoys of single zones are told.
    zones: Vec<DecisionRow>,
    /// About spare backends, which have no share.
    spare: Vec<DecisionRow>,
    /// What Envoys said to those about shares and zones, as far as it is known.
    acknowledgements: Vec<AcknowledgementRow>,
}

impl Decisions {
    fn acknowledgement(&self, decision: &DecisionRow) -> Option<&AcknowledgementRow> {
        self.acknowledgements.iter().find(|row| row.decision_id == decision.id)
    }
}

async fn in_force(config: &Config, times: &[DateTime<Utc>]) -> anyhow::Result<Vec<Decisions>> {
    let store = Store::open_as_it_is(database_settings(config)).await?;
    let mut all = Vec::with_capacity(times.len());
    for at in times {
        let mut decisions = Decisions::default();
        for model in &config.models {
            decisions.shares.extend(store.shares_in_force(&model.name, *at).await?);
            decisions.zones.extend(store.zones_in_force(&model.name, *at).await?);
            decisions.spare.extend(store.spare_in_force(&model.name, *at).await?);
        }
        let ids: Vec<_> = decisions.shares.iter().chain(&decisions.zones).map(|row| row.id).collect();
        decisions.acknowledgements = store.acknowledgements(&ids).await?;
        all.push(decisions);
    }
    store.close().await?;
    Ok(all)
}

/// The decision that names a backend, made again.
fn found(
    backend: SocketAddr,
    at: DateTime<Utc>,
    rows: &[DecisionRow],
) -> anyhow::Result<(&DecisionRow, Explained)> {
    let mut failed = Vec::new();
    for row in rows {
        match explain(row) {
            Ok(explained) if explained.part(backend).is_some() => return Ok((row, explained)),
            Ok(_) => {}
            Err(why) => failed.push(format!("{}, decided at {}: {why}", row.model, row.at.to_rfc3339())),
        }
    }
    let at = at.to_rfc3339();
    if rows.is_empty() {
        bail!("no decision is kept from {at} or before");
    }
    if failed.is_empty() {
        bail!("{backend} had a share of no model at {at}");
    }
    bail!("{backend} is in no decision that can be made again: {}", failed.join("; "))
}

fn as_json(
    backend: SocketAddr,
    row: &DecisionRow,
    explained: &Explained,
    told: Option<&AcknowledgementRow>,
    zoned: Option<&Zoned<'_>>,
) -> serde_json::Value {
    let part = explained.part(backend);
    json!({
        "backend": backend,
        "model": row.model,
        "decision": row.id,
        "at": row.at,
        "group": part.as_ref().map(|part| part.group),
        "group_weight": part.as_ref().map(|part| part.weight),
        "of_weight": part.as_ref().map(|part| part.of),
        "acknowledgement": told,
        "by_capacity_on": row.by_capacity_on(),
        "steered_percent": row.steered_percent(),
        "group_members": part.as_ref().map(|part| part.members),
        "endpoint_weight": part.as_ref().and_then(|part| part.own_weight),
        "share": part.as_ref().and_then(|part| part.share),
        "level_seconds": explained.level_seconds(),
        "arrivals_rps": explained.model.arrivals_rps,
        "mix": explained.model.mix,
        "law": explained.law,
        "zone": zoned.map(Zoned::as_json),
    })
}

fn as_text(
    backend: SocketAddr,
    row: &DecisionRow,
    explained: &Explained,
    acknowledged: &str,
    zoned: Option<&Zoned<'_>>,
    now: DateTime<Utc>,
) -> String {
    let Some(part) = explained.part(backend) else { return String::new() };
    let mut lines = vec![
        format!("{backend}, model {}: decision {} of {}", row.model, row.id, row.at.to_rfc3339()),
        format!(
            "group {}: weight {} of {}, {} backends take requests",
            part.group, part.weight, part.of, part.members
        ),
        acknowledged.to_owned(),
    ];
    lines.extend(steered(row));
    lines.extend(zoned.map(|zoned| zoned.as_text(now)));
    let Some(share) = part.share else {
        lines.push("it takes no new requests: it drains, or looks dead".to_owned());
        return lines.join("\n");
    };
    lines.push(format!("{}\n", share.reason));
    lines.extend(
        waterfall(&share.terms, explained)
            .into_iter()
            .map(|(what, value, unit)| format!("{what:<58}{value:>10.3} {unit}")),
    );
    lines.push(String::new());
    let steps = [
        ("share by capacity alone", Some(share.capacity_share)),
        ("share that is wanted", Some(share.terms.wanted_share)),
        ("share after smoothing", Some(share.terms.smoothed_share)),
        ("its part of its group's weight", Some(share.share)),
    ];
    let known = steps.into_iter().filter_map(|(what, share)| Some((what, share?)));
    lines.extend(known.map(|(what, share)| format!("{what:<58}{:>10.3} %", 100.0 * share)));
    if let Some(weight) = part.own_weight {
        lines.push(format!("{:<58}{weight:>10}", "its weight in the group, for the requests it has"));
    }
    lines.join("\n")
}

/// Which part of the requests went by predictions, where that was not all of them.
fn steered(row: &DecisionRow) -> Option<String> {
    match row.steered_percent()? {
        0 => Some("when it was made, all requests of the model went by capacity shares".to_owned()),
        percent if percent < 100 => Some(format!(
            "when it was made, {percent} % of the model's requests went by it, the others by capacity shares"
        )),
        _ => None,
    }
}

/// What adds up to the inflow that was wanted.
fn waterfall<'a>(terms: &Terms, explained: &Explained) -> Vec<(&'a str, f64, &'a str)> {
    let mut rows = vec![("requests that arrive for the model", explained.model.arrivals_rps, "requests/s")];
    if let Some(level) = explained.level_seconds() {
        rows.push(("common level: what one more request costs", level, "s"));
    }
    rows.extend([
        ("it runs slower than usual by the factor", terms.slowdown, ""),
        ("requests/s with a full batch", terms.capacity_rps, "requests/s"),
        ("requests in flight that the level gives it", terms.target_in_flight, ""),
    ]);
    if terms.surcharge_seconds > 0.0 {
        rows.push(("so much higher the level is for it, as it is dear", terms.surcharge_seconds, "s"));
    }
    rows.extend(terms.in_flight.map(|now| ("requests in flight that it has", now, "")));
    rows.extend([
        ("inflow that holds it at the level", terms.holding_rps, "requests/s"),
        ("+ correction towards the level", terms.correction_rps, "requests/s"),
    ]);
    let cap_rps = terms.cap_rps.unwrap_or_default();
    match terms.clamp {
        Some(Clamp::Floor) => rows.push(("raised to the floor", terms.floor_rps, "requests/s")),
        Some(Clamp::Ceiling) => rows.push(("cut to the ceiling", terms.ceiling_rps, "requests/s")),
        Some(Clamp::Sick) => rows.push(("cut to what shows whether it is well again", cap_rps, "requests/s")),
        Some(Clamp::Warming) => {
            rows.push(("cut to what it is given while it warms up", cap_rps, "requests/s"))
        }
        None => {}
    }
    rows.extend([
        ("trust in its telemetry; the rest is its capacity share", terms.trust, ""),
        ("= inflow that is wanted", terms.inflow_rps, "requests/s"),
    ]);
    rows
}
