//! `clairvoy export`: a time of the database as one file.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use chrono::{DateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::{self, Config};
use crate::replay::{Exported, Writer, export};
use crate::run::{Overrides, database_settings};
use crate::store::Store;

use super::ConfigFile;

/// What is younger may still be on its way into the database.
const SETTLED: TimeDelta = TimeDelta::seconds(10);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Begin here: a time such as 2026-11-20T09:00:00Z, or how long ago, such as 2h.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// End here: as `--from`. What is younger than 10 s may not be in the database yet.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    to: String,
    /// Only the telemetry and decisions of this model. A replay of that is no exact one: the order in which Clairvoy took
    /// everything is known only of all models together.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Write to this file, packed if it ends with `.gz` [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let now = Utc::now();
    let (from, to) = (time(&arguments.from, now, "--from")?, time(&arguments.to, now, "--to")?);
    if from >= to {
        bail!("--from {from} is not before --to {to}");
    }
    if to > now - SETTLED {
        eprintln!("note: what is younger than 10 s may not be in the database yet");
    }
    let overrides = Overrides {
        data_dir: arguments.file.data_dir,
        database_url: arguments.file.database_url,
        ..Overrides::default()
    };
    let config = overrides.apply(config::load(&arguments.file.config)?);
    config::check(&config).map_err(anyhow::Error::msg)?;
    if let Some(model) = &arguments.model
        && !config.models.iter().any(|known| known.name == *model)
    {
        let known: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
        bail!("there is no model `{model}`; there are: {}", known.join(", "));
    }
    let scope = (from, to, arguments.model);
    let Some(path) = &arguments.out else {
        let mut out = Writer::new(BufWriter::new(stdout().lock()))?;
        let done = read(&config, scope, &mut out)?;
        out.finish()?.1.flush()?;
        tell(&done, "standard output");
        return Ok(ExitCode::SUCCESS);
    };
    // Written aside, so that a file with this name is always a whole one.
    let part = aside(path);
    let written = write(&config, scope, &part, path).inspect_err(|_| {
        let _ = std::fs::remove_file(&part);
    })?;
    tell(&written, &path.display().to_string());
    Ok(ExitCode::SUCCESS)
}

fn write(
    config: &Config,
    scope: (DateTime<Utc>, DateTime<Utc>, Option<String>),
    part: &Path,
    path: &Path,
) -> anyhow::Result<Exported> {
    let cannot = || format!("cannot write {}", path.display());
    let file = BufWriter::new(File::create(part).with_context(cannot)?);
    let (done, file) = if path.extension().is_some_and(|extension| extension == "gz") {
        let mut out = Writer::new(GzEncoder::new(file, Compression::default()))?;
        let done = read(config, scope, &mut out)?;
        (done, out.finish()?.1.finish().with_context(cannot)?)
    } else {
        let mut out = Writer::new(file)?;
        let done = read(config, scope, &mut out)?;
        (done, out.finish()?.1)
    };
    file.into_inner()
        .map_err(|error| error.into_error())
        .with_context(cannot)?
        .sync_all()
        .with_context(cannot)?;
    std::fs::rename(part, path).with_context(cannot)?;
    Ok(done)
}

fn read<W: Write>(
    config: &Config,
    scope: (DateTime<Utc>, DateTime<Utc>, Option<String>),
    out: &mut Writer<W>,
) -> anyhow::Result<Exported> {
    let bar = progress_bar(scope.0, scope.1);
    let from = scope.0;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let store = Store::open_as_it_is(database_settings(config)).await?;
        let done = export(&store, config, scope, out, |at| {
            bar.set_position(u64::try_from((at - from).num_seconds()).unwrap_or_default());
        })
        .await;
        store.close().await?;
        done
    });
    bar.finish_and_clear();
    done
}

fn tell(done: &Exported, path: &str) {
    eprintln!("{} samples and {} decisions written to {path}", done.samples, done.decisions);
    if !done.ordered {
        eprintln!("note: without the order in which Clairvoy took them in; a replay makes ticks of its own");
    }
    if done.samples_missing > 0 {
        eprintln!("note: {} samples were decided on and are not in the database", done.samples_missing);
    }
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

/// A time, or how long ago.
pub(super) fn time(text: &str, now: DateTime<Utc>, option: &str) -> anyhow::Result<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.to_utc());
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| TimeDelta::from_std(ago).ok());
    ago.and_then(|ago| now.checked_sub_signed(ago)).with_context(|| {
        format!("{option} `{text}` is no time: write 2026-11-20T09:00:00Z, or 2h for two hours ago")
    })
}

fn progress_bar(from: DateTime<Utc>, to: DateTime<Utc>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(u64::try_from((to - from).num_seconds()).unwrap_or_default());
    let style = ProgressStyle::with_template("{wide_bar} {pos} of {len} s, {eta} left");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_an_instant_or_an_age() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        assert_eq!(time("2h", now, "--from").unwrap(), now - TimeDelta::hours(2));
        assert_eq!(time("2023-11-14T23:13:20+01:00", now, "--from").unwrap(), now);
        let said = time("yesterday", now, "--from").unwrap_err().to_string();
        assert!(said.contains("--from `yesterday`") && said.contains("2h"), "{said}");
    }

    #[test]
    fn the_part_lies_beside_the_file() {
        assert_eq!(aside(Path::new("/a/b.csv.gz")), Path::new("/a/b.csv.gz.part"));
    }
}
