//! `cargo xtask test`: the tests of all parts.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{self, Tools};
use crate::workspace::Workspace;
use crate::{dashboard, sh};

/// Run the tests: Rust against a real Envoy, gRPC and Postgres, then the dashboard's type check and tests.
///
/// Does the set-up and builds first. With words to filter by, only the Rust tests whose name contains one of
/// them are run. Ends with one line for each part; the exit code is 0 only when all passed.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the tests that take minutes, too, and try parsers with a hundred times as many inputs (sets
    /// CLAIRVOY_LONG=1; PROPTEST_CASES says how many instead)
    #[arg(long)]
    long: bool,
    /// Only Rust tests whose name contains one of these words
    filter: Vec<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let tools = setup::quietly(workspace)?;
    let grpcio = setup::grpcio(workspace, false)?;
    let mut senders = vec![("CLAIRVOY_OPENTELEMETRY", setup::opentelemetry(workspace, false)?)];
    match setup::prometheus(workspace, false) {
        Ok(program) => senders.push(("CLAIRVOY_PROMETHEUS", program)),
        Err(error) => println!("the test with Prometheus will fail: {error:#}"),
    }
    let mut parts = vec![rust(workspace, &tools, &grpcio, &senders, args)];
    if args.filter.is_empty() {
        parts.extend(dashboard_parts(workspace)?);
    }
    println!();
    for part in &parts {
        println!("{}", part.line());
    }
    let failed: Vec<_> = parts.iter().filter(|part| !part.passed).map(|part| part.name).collect();
    if !failed.is_empty() {
        bail!("tests failed: {}", failed.join(", "));
    }
    Ok(())
}

/// The outcome of one part.
struct Part {
    name: &'static str,
    passed: bool,
    counts: Option<Counts>,
}

impl Part {
    fn line(&self) -> String {
        let Self { name, passed, counts } = self;
        match counts {
            Some(Counts { passed, failed, skipped: 0 }) => {
                format!("{name}: {passed} passed, {failed} failed")
            }
            Some(Counts { passed, failed, skipped }) => {
                format!("{name}: {passed} passed, {failed} failed, {skipped} skipped")
            }
            None => format!("{name}: {}", if *passed { "ok" } else { "failed" }),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

fn rust(
    workspace: &Workspace,
    tools: &Tools,
    grpcio: &Path,
    senders: &[(&str, PathBuf)],
    args: &Args,
) -> Part {
    let mut counts = Counts::default();
    let mut test = workspace.cargo(&["test", "--workspace", "--no-fail-fast", "--"]);
    test.env("CLAIRVOY_ENVOY", &tools.envoy).env("CLAIRVOY_POSTGRES_BIN", &tools.postgres_bin);
    test.env("CLAIRVOY_GRPCIO", grpcio).envs(senders.iter().map(|(name, path)| (name, path)));
    let outcome = rust_tests(workspace, test, args, |line| {
        if let Some(more) = cargo_counts(line) {
            counts.passed += more.passed;
            counts.failed += more.failed;
            counts.skipped += more.skipped;
        }
    });
    part("Rust", outcome, Some(counts))
}

fn rust_tests(workspace: &Workspace, mut test: Command, args: &Args, see: impl FnMut(&str)) -> Result<()> {
    // The end-to-end tests start `clairvoy`, which belongs to another package: `cargo test` alone does
    // not bring it up to date.
    workspace.build_programs(false)?;
    test.args(&args.filter);
    test.env("CLAIRVOY_BIN", workspace.program("clairvoy", false)?);
    if let Some(folder) = dashboard::folder(workspace) {
        // The test of the page runs a script of the dashboard's.
        let script = dashboard::modules(workspace, &folder)?.script(&folder)?;
        test.env("CLAIRVOY_NODE", script.get_program());
    }
    if args.long {
        test.env("CLAIRVOY_LONG", "1");
    }
    sh::tee(&mut test, see)
}

fn dashboard_parts(workspace: &Workspace) -> Result<Vec<Part>> {
    let Some(folder) = dashboard::folder(workspace) else {
        println!("this checkout has no dashboards/web/package.json: no dashboard to test");
        return Ok(Vec::new());
    };
    let node = dashboard::modules(workspace, &folder)?;
    let types = sh::run(&mut node.npm(&folder, &["run", "--silent", "check"])?);

    let mut counts = None;
    let mut tests: Command = node.npm(&folder, &["--silent", "test"])?;
    tests.env("NO_COLOR", "1");
    let tests = sh::tee(&mut tests, |line| counts = vitest_counts(line).or(counts));
    Ok(vec![part("Types", types, None), part("Dashboard", tests, counts)])
}

fn part(name: &'static str, outcome: Result<()>, counts: Option<Counts>) -> Part {
    if let Err(error) = &outcome {
        eprintln!("{name}: {error:#}");
    }
    Part { name, passed: outcome.is_ok(), counts }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
fn cargo_counts(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    Some(counts(rest, ';'))
}

/// Reads `      Tests  1 failed | 11 passed | 2 skipped (14)`.
fn vitest_counts(line: &str) -> Option<Counts> {
    let rest = line.trim_start().strip_prefix("Tests  ")?;
    Some(counts(rest.split('(').next().unwrap_or(rest), '|'))
}

fn counts(text: &str, separator: char) -> Counts {
    let mut counts = Counts::default();
    for entry in text.split(separator) {
        let mut words = entry.split_whitespace();
        let (Some(Ok(number)), Some(word)) = (words.next().map(str::parse), words.next()) else { continue };
        match word {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" | "skipped" | "todo" => counts.skipped += number,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_summaries_are_counted() {
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 5 filtered out; finished in 0.01s";
        assert_eq!(cargo_counts(line), Some(Counts { passed: 3, failed: 1, skipped: 2 }));
        assert_eq!(cargo_counts("running 3 tests"), None);
    }

    #[test]
    fn vitest_summaries_are_counted() {
        let line = "      Tests  1 failed | 11 passed | 2 skipped (14)";
        assert_eq!(vitest_counts(line), Some(Counts { passed: 11, failed: 1, skipped: 2 }));
        assert_eq!(
            vitest_counts("      Tests  12 passed (12)"),
            Some(Counts { passed: 12, failed: 0, skipped: 0 })
        );
        assert_eq!(vitest_counts(" Test Files  3 passed (3)"), None);
    }

    #[test]
    fn a_closing_line_tells_counts_where_there_are_any() {
        let counts = Some(Counts { passed: 4, failed: 0, skipped: 1 });
        assert_eq!(Part { name: "Rust", passed: true, counts }.line(), "Rust: 4 passed, 0 failed, 1 skipped");
        assert_eq!(Part { name: "Types", passed: false, counts: None }.line(), "Types: failed");
    }
}
