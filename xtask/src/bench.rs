//! `cargo xtask bench`: the benchmarks, found by their files.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;
use crate::workspace::Workspace;

/// List the benchmarks, or run those of a crate.
///
/// A benchmark is a file or folder in the `benches` folder of a crate; it is built with optimisation, which
/// takes minutes the first time. Its tables become a page in `docs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The crate's folder, or one benchmark; left out, they are listed
    name: Option<String>,
    /// Seconds instead of minutes, to see that all is well; writes no page
    #[arg(long)]
    quick: bool,
    /// More arguments for the benchmark, after `--`; with any, no page is written
    #[arg(last = true)]
    more: Vec<String>,
}

/// The page with the tables of the fleet benchmark.
const PAGE: &str = "docs/benchmarks.md";

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
        let known: Vec<_> = found.iter().map(|found| found.package.as_str()).collect();
        bail!("no benchmark `{name}`; there are: {}", known.join(", "));
    }
    for Benchmark { name, .. } in chosen {
        let mut bench = workspace.cargo(&["bench", "--workspace", "--bench", name, "--"]);
        bench.args(&args.more);
        if args.quick {
            bench.arg("--quick");
        } else if name == "fleet" && args.more.is_empty() {
            bench.arg("--write").arg(workspace.root().join(PAGE));
        }
        sh::run(&mut bench)?;
    }
    Ok(())
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
