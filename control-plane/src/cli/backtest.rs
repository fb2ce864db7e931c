//! `clairvoy backtest`: what would have been forecast, and how good it would have been.

mod database;
mod series;
mod table;
mod waits;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use clairvoy_forecaster::{Backtest, DemandConfig, Grid, Issue, QUANTILES, WaitView, backtest};

use self::series::Table;
use super::ConfigFile;

/// Horizons that are forecast unless told otherwise, as far as they are whole steps.
const HORIZON_MINUTES: [u64; 8] = [1, 5, 10, 20, 30, 60, 6 * 60, 24 * 60];

/// The nearest two steps are always forecast: replicas are planned by them.
const PLANNED_STEPS: [u32; 2] = [1, 2];

/// Digits of a rate in the file of forecasts.
const DIGITS: usize = 4;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("source").required(true))]
pub(super) struct Arguments {
    /// Demand to forecast: a CSV file with a header and the columns `timestamp_s`, `model` and `rps`, one row for each
    /// step of each model. The step is found by the timestamps; a row that is left out or has no rate is unknown.
    #[arg(long, value_name = "FILE", group = "source")]
    series: Option<PathBuf>,
    /// Demand to forecast: what Clairvoy has measured or was told, from the database of the configuration.
    #[arg(long, group = "source")]
    from_database: bool,
    /// Waits to forecast: a CSV file with one row for each request, in order of arrival: `server`, `t_s`, `prompt_tokens` and
    /// the outcome `ttft_s`, and what the server showed just before, as far as it is known: `waiting`, `running`,
    /// `kv_usage`, `waiting_prompt_tokens`, `itl_s`, `gen_tps`, `prefill_tps`, `recent_wait_s`, `recent_ttft_s`.
    #[arg(long, value_name = "FILE", group = "source")]
    waits: Option<PathBuf>,
    /// Whose forecasts of waits are written: a router knows each prompt and what it has sent, Clairvoy what a scrape shows.
    #[arg(long, value_name = "WHO", default_value = "router")]
    view: View,
    /// The column with the values, instead of `rps`.
    #[arg(long, value_name = "NAME", default_value = "rps")]
    column: String,
    /// Write every forecast to this CSV file: model, origin_s, horizon_s, quantile, value; of waits: server, row, age_s,
    /// ttft_s, ttft_q90_s.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Steps that are known before the first forecast [default: half of the series].
    #[arg(long, value_name = "WINDOWS")]
    train: Option<usize>,
    /// Steps between two forecasts that are scored; a number without a common divisor with an hour meets all its minutes.
    #[arg(long, value_name = "WINDOWS", default_value_t = 7)]
    every: usize,
    /// Length of the season after which demand tends to repeat.
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = humantime::parse_duration)]
    season: Duration,
    /// How far ahead to forecast, in multiples of the step [default: 1m,5m,10m,20m,30m,1h,6h,24h as far as they are].
    #[arg(long, value_name = "TIMES", value_delimiter = ',', value_parser = humantime::parse_duration)]
    horizons: Vec<Duration>,
    /// Time that a replica takes to start, for the table of autoscaling policies.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = humantime::parse_duration)]
    cold_start: Duration,
    #[command(flatten)]
    file: ConfigFile,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum View {
    Router,
    ControlPlane,
}

impl From<View> for WaitView {
    fn from(view: View) -> Self {
        match view {
            View::Router => Self::Router,
            View::ControlPlane => Self::ControlPlane,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.waits {
        let mut out = arguments.out.as_deref().map(create).transpose()?;
        waits::run(path, arguments.view.into(), out.as_mut())?;
        return Ok(ExitCode::SUCCESS);
    }
    let table = match &arguments.series {
        Some(path) => series::read(path, &arguments.column)?,
        None => database::read(&arguments.file)?,
    };
    let how = plan(&arguments, &table)?;
    // Opened first: an hour of work must not end at a folder that does not exist.
    let out = arguments.out.as_deref().map(create).transpose()?;
    let bar = progress_bar(table.steps() as u64);
    let issues = backtest(&table.series, &how, |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    if let (Some(mut out), Some(path)) = (out, &arguments.out) {
        write(&mut out, &table, &issues).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{} forecasts written to {}", issues.len(), path.display());
    }
    let cold_minutes = (arguments.cold_start.as_secs() / 60) as usize;
    print!("{}", table::render(&table, &how, &issues, cold_minutes));
    Ok(ExitCode::SUCCESS)
}

fn plan(arguments: &Arguments, table: &Table) -> anyhow::Result<Backtest> {
    let step_seconds = table.step_seconds;
    let steps = |time: Duration| u32::try_from(time.as_secs() / u64::from(step_seconds)).unwrap_or(u32::MAX);
    let is_whole = |time: &Duration| {
        time.as_secs() > 0 && time.as_secs().is_multiple_of(step_seconds.into()) && time.subsec_nanos() == 0
    };
    if let Some(wrong) = arguments.horizons.iter().chain([&arguments.season]).find(|time| !is_whole(time)) {
        bail!(
            "{} is no multiple of the step of {step_seconds} s between two rows of the series",
            humantime::format_duration(*wrong)
        );
    }
    let grid = Grid { step_seconds, season_steps: steps(arguments.season) };
    let default = HORIZON_MINUTES.map(|minutes| Duration::from_secs(60 * minutes));
    let wanted = if arguments.horizons.is_empty() { &default[..] } else { &arguments.horizons };
    let mut horizons: Vec<u32> =
        wanted.iter().filter(|time| is_whole(time)).map(|time| steps(*time)).collect();
    horizons.extend(PLANNED_STEPS);
    horizons.sort_unstable();
    horizons.dedup();
    let mut config = DemandConfig { grid, horizons };
    if arguments.horizons.is_empty() {
        // On a fine grid the furthest of the usual horizons are beyond what is remembered.
        let furthest = config.history_steps() / 2;
        config.horizons.retain(|horizon| *horizon <= furthest);
    }
    config.validate()?;
    let train_steps = arguments.train.unwrap_or(table.steps() / 2);
    if train_steps >= table.steps() {
        bail!("the series has {} steps; with --train {train_steps} none is left to forecast", table.steps());
    }
    if arguments.every == 0 {
        bail!("--every must be at least 1");
    }
    Ok(Backtest { config, train_steps, every_steps: arguments.every })
}

fn create(path: &Path) -> anyhow::Result<BufWriter<File>> {
    Ok(BufWriter::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?))
}

fn write(out: &mut impl Write, table: &Table, issues: &[Issue]) -> anyhow::Result<()> {
    let mut rows = csv::Writer::from_writer(out);
    rows.write_record(["model", "origin_s", "horizon_s", "quantile", "value"])?;
    for issue in issues {
        let origin = table.seconds(issue.origin).to_string();
        let horizon = (u64::from(issue.horizon_steps) * u64::from(table.step_seconds)).to_string();
        let model = &table.series[issue.series].name;
        for (level, value) in QUANTILES.iter().zip(issue.quantiles.values()) {
            let (level, value) = (level.to_string(), format!("{value:.DIGITS$}"));
            rows.write_record([model.as_str(), &origin, &horizon, &level, &value])?;
        }
    }
    Ok(rows.flush()?)
}

fn progress_bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} steps, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
