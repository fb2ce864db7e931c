//! `clairvoy explain`: why a backend had its share; why requests for a model were refused, and why its canary stepped back.

mod acknowledgement;
mod canary;
mod policy;
mod share;
mod shed;
mod spare;
mod zone;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::bail;
use chrono::{DateTime, Utc};

use crate::config::{self, Config};
use crate::decide::Zone;
use crate::run::{ByCapacity, Explanation, Overrides, Part, by_capacity, database_settings, explain};
use crate::store::{AcknowledgementRow, DecisionRow, Store};

use super::ConfigFile;
use super::export::time;
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
    match arguments.what.parse::<SocketAddr>() {
        Ok(backend) => {
            let asked = Asked { backend, zone: arguments.zone.as_ref(), as_lines: arguments.json, now };
            runtime.block_on(of_backend(&config, &asked, &times))?;
        }
        Err(_) => runtime.block_on(of_model(&config, &arguments.what, &times, arguments.json))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked of a backend.
#[derive(Debug)]
struct Asked<'a> {
    backend: SocketAddr,
    zone: Option<&'a Zone>,
    as_lines: bool,
    now: DateTime<Utc>,
}

/// The decision about a backend's share, and what is known of it beside how it came about.
#[derive(Debug)]
struct Decided<'a> {
    backend: SocketAddr,
    row: &'a DecisionRow,
    /// What Envoys said to it.
    told: Option<&'a AcknowledgementRow>,
    /// Why no requests went by it.
    not_in_force: Option<ByCapacity>,
    /// What the Envoys of the zone were told that is asked for.
    zoned: Option<Zoned<'a>>,
    now: DateTime<Utc>,
}

impl Decided<'_> {
    /// Which decision it is.
    fn heading(&self) -> String {
        let Self { backend, row, .. } = self;
        format!("{backend}, model {}: decision {} of {}", row.model, row.id, row.at.to_rfc3339())
    }
}

/// The place of a backend, in one line.
fn place(part: &Part<'_>) -> String {
    let Part { group, weight, of, members, .. } = part;
    format!("group {group}: weight {weight} of {of}, {members} backends take requests")
}

/// Prints why a backend had its share, at each time.
async fn of_backend(config: &Config, asked: &Asked<'_>, times: &[DateTime<Utc>]) -> anyhow::Result<()> {
    let store = Store::open_as_it_is(database_settings(config)).await?;
    let printed = async {
        for at in times {
            println!("{}", explained(&store, config, asked, *at).await?);
        }
        anyhow::Ok(())
    }
    .await;
    store.close().await?;
    printed
}

/// Why a backend had its share at a time.
async fn explained(
    store: &Store,
    config: &Config,
    asked: &Asked<'_>,
    at: DateTime<Utc>,
) -> anyhow::Result<String> {
    let decisions = in_force(store, config, at).await?;
    let found = found(asked.backend, at, &decisions.shares);
    if found.is_err()
        && let Some(text) = spare::explained(asked.backend, &decisions.spare, asked.as_lines)
    {
        return Ok(text);
    }
    let (row, explanation) = found?;
    let zoned = match asked.zone {
        Some(zone) => Some(Zoned::find(zone, asked.backend, &row.model, &decisions)?),
        None => None,
    };
    let told = decisions.acknowledgement(row);
    let not_in_force = match explanation {
        Explanation::Again(_) => by_capacity(store, &row.model, at).await?,
        // No prediction steers it, however good telemetry is.
        Explanation::Recorded(_) => None,
    };
    let decided = Decided { backend: asked.backend, row, told, not_in_force, zoned, now: asked.now };
    Ok(match (&explanation, asked.as_lines) {
        (Explanation::Again(explained), true) => share::json(&decided, explained).to_string(),
        (Explanation::Again(explained), false) => share::text(&decided, explained),
        (Explanation::Recorded(recorded), true) => policy::json(&decided, recorded).to_string(),
        (Explanation::Recorded(recorded), false) => policy::text(&decided, recorded),
    })
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

async fn in_force(store: &Store, config: &Config, at: DateTime<Utc>) -> anyhow::Result<Decisions> {
    let mut decisions = Decisions::default();
    for model in &config.models {
        decisions.shares.extend(store.shares_in_force(&model.name, at).await?);
        decisions.zones.extend(store.zones_in_force(&model.name, at).await?);
        decisions.spare.extend(store.spare_in_force(&model.name, at).await?);
    }
    let ids: Vec<_> = decisions.shares.iter().chain(&decisions.zones).map(|row| row.id).collect();
    decisions.acknowledgements = store.acknowledgements(&ids).await?;
    Ok(decisions)
}

/// The decision that names a backend, and what is known of it.
fn found(
    backend: SocketAddr,
    at: DateTime<Utc>,
    rows: &[DecisionRow],
) -> anyhow::Result<(&DecisionRow, Explanation)> {
    let mut failed = Vec::new();
    for row in rows {
        match explain(row) {
            Ok(explanation) if explanation.knows(backend) => return Ok((row, explanation)),
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
