//! `clairvoy replay`: the decisions of an export, made again.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::config;
use crate::replay::{Comparison, Reader, Replay};
use crate::store::DecisionRow;

/// Longest line that is read of `--diff`, in bytes.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What `clairvoy export` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Decide by this configuration instead of the one that was in force: models, pools, `balance` and `forecast` count.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the decisions to this file [default: standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Compare with the decisions of another replay, instead of those in the export. With `--config`, only this compares.
    #[arg(long, value_name = "FILE")]
    diff: Option<PathBuf>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let other = arguments.config.as_deref().map(config::load).transpose()?;
    if let Some(other) = &other {
        config::check(other).map_err(anyhow::Error::msg)?;
    }
    let with_recorded = other.is_none() && arguments.diff.is_none();
    let mut earlier = arguments.diff.as_deref().map(Earlier::open).transpose()?;
    let path = &arguments.file;
    let input = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut out: Box<dyn Write> = match &arguments.out {
        Some(path) => {
            Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
        None => Box::new(stdout().lock()),
    };
    let mut out = BufWriter::new(&mut out);
    let in_file = || path.display().to_string();
    let mut reader = Reader::new(BufReader::new(input)).with_context(in_file)?;
    let mut replay = Replay::new(other);
    let mut comparison = (with_recorded || earlier.is_some()).then(Comparison::default);
    while let Some(row) = reader.next_row().with_context(in_file)? {
        if let Some(recorded) = row.decision().filter(|_| with_recorded)
            && let Some(comparison) = &mut comparison
        {
            comparison.before(recorded.clone());
        }
        for decision in replay.take(row).with_context(in_file)? {
            serde_json::to_writer(&mut out, &decision)?;
            out.write_all(b"\n")?;
            if let Some(comparison) = &mut comparison {
                if let Some(before) = earlier.as_mut().map(Earlier::next).transpose()?.flatten() {
                    comparison.before(before);
                }
                comparison.now(decision);
            }
        }
    }
    out.flush()?;
    if let (Some(comparison), Some(earlier)) = (&mut comparison, &mut earlier)
        && let Some(left) = earlier.next()?
    {
        comparison.before(left);
    }
    Ok(tell(&replay, comparison.as_ref(), arguments.diff.is_some()))
}

fn tell(replay: &Replay, comparison: Option<&Comparison>, with_file: bool) -> ExitCode {
    let tally = replay.tally();
    eprintln!("{} samples and {} ticks led to {} decisions", tally.samples, tally.ticks, tally.decisions);
    if let Some(missing) = &tally.missing {
        eprintln!(
            "note: the export does not have everything, so decisions may differ from those of then: {missing}"
        );
    }
    if tally.not_found > 0 {
        eprintln!("note: {} forecasts that were used then were not made now", tally.not_found);
    }
    let Some(comparison) = comparison else { return ExitCode::SUCCESS };
    let other = if with_file { "the file's" } else { "the recorded ones" };
    match comparison.difference() {
        None => {
            eprintln!("the decisions are the same as {other}: {} of {0}", comparison.equal());
            ExitCode::SUCCESS
        }
        Some(difference) => {
            eprintln!("after {} decisions that are the same as {other}, {difference}", comparison.equal());
            ExitCode::FAILURE
        }
    }
}

/// The decisions of an earlier replay, read as they are needed.
struct Earlier {
    file: BufReader<File>,
    path: PathBuf,
    line: u64,
}

impl Earlier {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { file: BufReader::new(file), path: path.to_owned(), line: 0 })
    }

    fn next(&mut self) -> anyhow::Result<Option<DecisionRow>> {
        let mut line = Vec::new();
        let path = self.path.display();
        let read = self.file.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {path}"))? == 0 {
            return Ok(None);
        }
        self.line += 1;
        serde_json::from_slice(&line).map(Some).with_context(|| {
            format!("{path}, line {}: no decision; --diff wants what `clairvoy replay` printed", self.line)
        })
    }
}
