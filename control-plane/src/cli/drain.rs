//! `clairvoy drain`: takes a backend out of service, and tells when it may be stopped.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, stderr};
use std::mem::discriminant;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::config;
use crate::decide::drain_outlook;
use crate::run::Overrides;
use crate::view::{BackendState, BackendView, ProxyState};

use super::ConfigFile;
use super::api::{Api, ApiArguments};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// It has to look empty for as long, so that no request is overlooked that was on its way.
const EMPTY_FOR: Duration = Duration::from_secs(3);
/// Within this time Envoys have reported what they have running, however many they are.
const REPORTED_WITHIN: Duration = Duration::from_secs(25);
/// Where there is no terminal, progress of one kind is told so often at most.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Longest age of telemetry that says what runs, seconds.
const FRESH_SECONDS: f64 = 5.0;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The backend, as `ip:port`.
    #[arg(value_name = "BACKEND")]
    backend: SocketAddr,
    #[command(flatten)]
    api: ApiArguments,
    /// Give up watching after this time; the backend goes on draining.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    within: Duration,
    /// Do not wait until the requests that run have ended.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let overrides = Overrides {
        data_dir: arguments.file.data_dir.clone(),
        api: arguments.api.listen_api,
        ..Overrides::default()
    };
    let config = overrides.apply(config::load(&arguments.file.config)?);
    let api = Api::new(&arguments.api, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(drain(&arguments, &api))
}

async fn drain(arguments: &Arguments, api: &Api) -> anyhow::Result<ExitCode> {
    let address = arguments.backend.to_string();
    let state = api.state().await?;
    let backend = state.backends.iter().find(|backend| backend.address == address);
    let backend = backend.with_context(|| format!("no pool has a backend {address}"))?;
    api.drain(&backend.pool, &address).await?;
    eprintln!("{address} of pool {} takes no new requests", backend.pool);
    if arguments.no_wait {
        return Ok(ExitCode::SUCCESS);
    }
    let (mut shown, began) = (Shown::new(), Instant::now());
    let (mut empty_since, mut drains, mut told) = (None, false, BTreeSet::new());
    while began.elapsed() < arguments.within {
        tokio::time::sleep(LOOK_EVERY).await;
        let state = api.state().await?;
        let Some(backend) = state.backends.iter().find(|backend| backend.address == address) else {
            shown.end();
            println!("{address} has left the fleet");
            return Ok(ExitCode::SUCCESS);
        };
        // The picture may be older than the order.
        drains |= backend.state == BackendState::Draining;
        if !drains {
            continue;
        }
        // One heartbeat or another is always under way: an Envoy that had all once since then knows.
        let in_sync = state.proxies.iter().filter(|proxy| proxy.state == ProxyState::InSync);
        told.extend(in_sync.map(|proxy| proxy.node_id.clone()));
        let waiting = state.proxies.iter().filter(|proxy| !told.contains(&proxy.node_id)).count();
        let progress = Progress::of(waiting, backend, began.elapsed());
        if progress == Progress::TakenBack {
            shown.end();
            bail!("{address} takes requests again: somebody has registered it meanwhile");
        }
        shown.tell(&progress);
        if progress != Progress::Empty {
            empty_since = None;
            continue;
        }
        if empty_since.get_or_insert_with(Instant::now).elapsed() >= EMPTY_FOR {
            shown.end();
            println!("{address} may be stopped: nothing runs there since {EMPTY_FOR:?}");
            return Ok(ExitCode::SUCCESS);
        }
    }
    shown.end();
    eprintln!("{address} still drains after {}", humantime::format_duration(arguments.within));
    Ok(ExitCode::FAILURE)
}

/// How far a backend has drained.
#[derive(Clone, Debug, PartialEq)]
enum Progress {
    TakenBack,
    /// Not all Envoys know yet.
    Telling {
        envoys: usize,
    },
    /// Nobody tells what runs there.
    Unknown,
    Runs {
        requests: f64,
        outlook: Option<(f64, f64)>,
    },
    Empty,
}

impl Progress {
    fn of(envoys: usize, backend: &BackendView, elapsed: Duration) -> Self {
        if backend.state != BackendState::Draining {
            return Self::TakenBack;
        }
        if envoys > 0 {
            return Self::Telling { envoys };
        }
        // What was scraped before it began to drain says nothing about now.
        let newest = FRESH_SECONDS.min(elapsed.as_secs_f64());
        let is_fresh = backend.telemetry_age_seconds.is_some_and(|age| age < newest);
        let own =
            backend.running.map(|running| running + backend.queue_depth.unwrap_or(0.0)).filter(|_| is_fresh);
        match own.into_iter().chain(backend.requests_in_progress).reduce(f64::max) {
            None => Self::Unknown,
            // What Envoys report alone may be as old as two of their intervals.
            Some(requests) if requests < 0.5 && own.is_none() && elapsed < REPORTED_WITHIN => Self::Unknown,
            Some(requests) if requests < 0.5 => Self::Empty,
            Some(requests) => {
                let outlook = drain_outlook(requests, backend.response_seconds);
                Self::Runs {
                    requests,
                    outlook: outlook.map(|outlook| (outlook.median_seconds, outlook.p95_seconds)),
                }
            }
        }
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TakenBack => write!(formatter, "taken back"),
            Self::Telling { envoys } => {
                write!(formatter, "{envoys} Envoys have not taken the newest state yet")
            }
            Self::Unknown => write!(formatter, "neither telemetry nor Envoys tell what runs there"),
            Self::Runs { requests, outlook: None } => write!(formatter, "{requests:.0} requests run"),
            Self::Runs { requests, outlook: Some((median, p95)) } => write!(
                formatter,
                "{requests:.0} requests run; they should have ended in {median:.0} s, and in {p95:.0} s with 95 % certainty"
            ),
            Self::Empty => write!(formatter, "nothing runs"),
        }
    }
}

/// Where progress is shown: a bar on a terminal, lines where there is none.
struct Shown {
    bar: Option<ProgressBar>,
    /// The newest line, and when it was written.
    told: Option<(Progress, Instant)>,
}

impl Shown {
    fn new() -> Self {
        Self { bar: stderr().is_terminal().then(progress_bar), told: None }
    }

    fn tell(&mut self, progress: &Progress) {
        if let Some(bar) = &self.bar {
            bar.set_message(progress.to_string());
            bar.tick();
            return;
        }
        let told = self.told.as_ref().map(|(told, at)| (told, at.elapsed()));
        if is_news(progress, told) {
            eprintln!("{progress}");
            self.told = Some((progress.clone(), Instant::now()));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether progress is worth a line beside what was told last, so long ago: another kind at once, other numbers now and then.
fn is_news(progress: &Progress, told: Option<(&Progress, Duration)>) -> bool {
    told.is_none_or(|(told, ago)| {
        let is_other_kind = discriminant(told) != discriminant(progress);
        is_other_kind || (ago >= TOLD_EVERY && told.to_string() != progress.to_string())
    })
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_when_something_else_happens_and_every_few_seconds_while_numbers_change() {
        let runs = |requests| Progress::Runs { requests, outlook: Some((4.0, 9.0)) };
        let news = |progress: &Progress, told: &Progress, ago| {
            is_news(progress, Some((told, Duration::from_secs(ago))))
        };
        assert!(is_news(&runs(3.0), None));
        assert!(news(&Progress::Empty, &runs(3.0), 1));
        assert!(!news(&runs(2.0), &runs(3.0), 4) && news(&runs(2.0), &runs(3.0), 5));
        assert!(!news(&runs(3.0), &runs(3.1), 60), "it reads the same");
    }
}
