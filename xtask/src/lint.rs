//! `cargo xtask lint`: every check that needs no running program.

use std::fs;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{files, sh};

/// Check formatting, lints, documentation, file lengths, licences and the TLS provider.
///
/// All steps run even when one fails; the last line names those that did. `cargo fmt --all` mends the
/// formatting, the rest is for people.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Over this many lines nobody finds their way about a file.
const MOST_LINES: usize = 500;

const MEASURED: [&str; 5] = ["rs", "ts", "svelte", "sql", "css"];

/// A second TLS provider, or one that needs C libraries on the user's machine.
const UNWANTED: [&str; 3] = ["aws-lc-rs", "openssl-sys", "native-tls"];

type Step = fn(&Workspace) -> Result<()>;

const STEPS: [(&str, Step); 6] = [
    ("fmt", format),
    ("clippy", clippy),
    ("doc", documentation),
    ("length", lengths),
    ("tls", tls_provider),
    ("deny", deny),
];

pub(crate) fn run(workspace: &Workspace, _args: &Args) -> Result<()> {
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        let started = Instant::now();
        let outcome = step(workspace);
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => println!("{name:<8} ok ({seconds:.1} s)"),
            Err(error) => {
                eprintln!("{name:<8} failed ({seconds:.1} s): {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    sh::run(&mut workspace.cargo(&["fmt", "--all", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    sh::run(&mut workspace.cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn documentation(workspace: &Workspace) -> Result<()> {
    sh::run(workspace.cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

fn lengths(workspace: &Workspace) -> Result<()> {
    let mut long = String::new();
    for file in files::sources(workspace.root(), &[])? {
        if !file.extension().is_some_and(|ending| MEASURED.iter().any(|known| ending == *known)) {
            continue;
        }
        let lines = fs::read_to_string(&file)?.lines().count();
        if lines > MOST_LINES {
            long.push_str(&format!("\n    {} {lines}", workspace.short(&file)));
        }
    }
    if !long.is_empty() {
        bail!("files of more than {MOST_LINES} lines, to be split by subject:{long}");
    }
    Ok(())
}

fn tls_provider(workspace: &Workspace) -> Result<()> {
    for name in UNWANTED {
        let output = sh::output(&mut workspace.cargo(&["tree", "--workspace", "--invert", name]))?;
        if output.success && !output.stdout.trim().is_empty() {
            bail!("{name} has come in, and ring is to be the only TLS provider:\n{}", output.stdout);
        }
        if !output.success && !output.stderr.contains("did not match any packages") {
            bail!("`cargo tree` failed:{}", sh::tail(&output.stderr, 5));
        }
    }
    Ok(())
}

fn deny(workspace: &Workspace) -> Result<()> {
    if !sh::output(&mut workspace.cargo(&["deny", "--version"]))?.success {
        println!(
            "cargo-deny is not installed, licences unchecked: `cargo install --locked cargo-deny` adds it"
        );
        return Ok(());
    }
    sh::run(&mut workspace.cargo(&["deny", "check", "bans", "licenses", "sources"]))?;
    let advisories = sh::output(&mut workspace.cargo(&["deny", "check", "advisories"]))?;
    if advisories.success {
        return Ok(());
    }
    if advisories.stderr.contains("failed to fetch advisory database") {
        println!("offline: the advisories are unchecked");
        return Ok(());
    }
    bail!("advisories:\n{}", advisories.stderr);
}
