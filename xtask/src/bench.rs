//! `cargo xtask bench`: the benchmarks, found by their files.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;
use crate::workspace::Workspace;

mod page;

/// List the benchmarks, or run one or those of a crate.
///
/// A benchmark is a file or folder in the `benches` folder of a crate; it is built with optimisation, which
/// takes minutes the first time. Some write tables, which become a section of `docs/benchmarks.md`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The crate's folder, or a benchmark's name; left out, they are listed
    name: Option<String>,
    /// Seconds instead of minutes, to see that all is well; the page stays as it is
    #[arg(long)]
    quick: bool,
    /// Change the page though there are more arguments
    #[arg(long, conflicts_with = "quick")]
    write: bool,
    /// More arguments for the benchmark, after `--`; with any, the page stays as it is, unless `--write` is given
    #[arg(last = true)]
    more: Vec<String>,
}

/// The page with the tables.
const PAGE: &str = "docs/benchmarks.md";

/// The benchmarks that write tables, with the section of the page that these are.
const SECTIONS: [(&str, &str); 10] = [
    ("access-log", "access-log"),
    ("balance", "balance"),
    ("cost", "cost"),
    ("decide", "decide"),
    ("fleet", "xds"),
    ("forecast", "forecast"),
    ("ingest", "store"),
    ("push", "push"),
    ("scrape", "scrape"),
    ("steer", "steer"),
];

/// The benchmarks that run the programs, which are then built first.
const OF_PROGRAMS: [&str; 2] = ["balance", "steer"];

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let found = benchmarks(workspace.root())?;
    let Some(name) = &args.name else {
        match found.as_slice() {
            [] => println!("there are no benchmarks yet"),
            _ => found.iter().for_each(|found| println!("{}/{}", found.package, found.name)),
        }
        return Ok(());
    };
    let chosen: Vec<_> = found.iter().filter(|found| found.package == *name || found.name == *name).collect();
    if chosen.is_empty() {
        let known: Vec<_> = found.iter().map(|found| format!("{}/{}", found.package, found.name)).collect();
        bail!("no benchmark `{name}`; there are: {}", known.join(", "));
    }
    for Benchmark { name, .. } in chosen {
        if OF_PROGRAMS.contains(&name.as_str()) {
            sh::run(&mut workspace.cargo(&["build", "--workspace", "--bins", "--profile", "bench"]))?;
        }
        let mut bench = workspace.cargo(&["bench", "--workspace", "--bench", name, "--"]);
        bench.args(&args.more);
        if args.quick {
            bench.arg("--quick");
        }
        let section = SECTIONS.iter().find(|(bench, _)| bench == name);
        match section.filter(|_| !args.quick && (args.write || args.more.is_empty())) {
            Some((_, section)) => run_for_page(workspace, bench, section)?,
            None => sh::run(&mut bench)?,
        }
    }
    Ok(())
}

/// Runs a benchmark that writes its section to a file, and puts that into the page.
fn run_for_page(workspace: &Workspace, mut bench: Command, section: &str) -> Result<()> {
    let folder = workspace.target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let written = folder.join(format!("{section}.md"));
    sh::run(bench.arg("--write").arg(&written))?;
    page::put(&workspace.root().join(PAGE), section, &written)
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Benchmark {
    /// The folder of its crate.
    package: String,
    name: String,
}

/// Returns all `CRATE/benches/NAME.rs` and `CRATE/benches/NAME/main.rs`, sorted.
fn benchmarks(root: &Path) -> Result<Vec<Benchmark>> {
    let mut found = Vec::new();
    for package in fs::read_dir(root)? {
        let package = package?;
        let Ok(entries) = fs::read_dir(package.path().join("benches")) else { continue };
        for entry in entries {
            let path = entry?.path();
            let is_bench =
                path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").is_file();
            if let (true, Some(name)) = (is_bench, path.file_stem()) {
                let package = package.file_name().to_string_lossy().into_owned();
                found.push(Benchmark { package, name: name.to_string_lossy().into_owned() });
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn benchmarks_are_found_by_their_files() {
        let root = env::temp_dir().join(format!("xtask-bench-{}", std::process::id()));
        for file in
            ["xds/benches/push.rs", "xds/benches/fleet/main.rs", "xds/benches/notes.md", "xds/src/lib.rs"]
        {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = benchmarks(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        let found: Vec<_> = found.iter().map(|found| (&*found.package, &*found.name)).collect();
        assert_eq!(found, [("xds", "fleet"), ("xds", "push")]);
    }
}
