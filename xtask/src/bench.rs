//! `cargo xtask bench`: the benchmarks, found by their files.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::sh;
use crate::workspace::Workspace;

/// List the benchmarks, or run one of them.
///
/// A benchmark is a file in the `benches` folder of one of the crates; it is built with optimisation, which
/// takes minutes the first time.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The benchmark to run; left out, they are listed
    name: Option<String>,
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let found = benchmarks(workspace.root())?;
    match &args.name {
        None if found.is_empty() => println!("there are no benchmarks yet"),
        None => println!("{}", found.join("\n")),
        Some(name) if found.contains(name) => {
            sh::run(&mut workspace.cargo(&["bench", "--workspace", "--bench", name]))?;
        }
        Some(name) if found.is_empty() => bail!("no benchmark `{name}`: there are no benchmarks yet"),
        Some(name) => bail!("no benchmark `{name}`; there are: {}", found.join(", ")),
    }
    Ok(())
}

/// Returns the names of all `CRATE/benches/NAME.rs` and `CRATE/benches/NAME/main.rs`, sorted.
fn benchmarks(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for package in fs::read_dir(root)? {
        let folder = package?.path();
        let Ok(entries) = fs::read_dir(folder.join("benches")) else { continue };
        for entry in entries {
            let path = entry?.path();
            let is_bench =
                path.extension().is_some_and(|ending| ending == "rs") || path.join("main.rs").is_file();
            if let (true, Some(name)) = (is_bench, path.file_stem()) {
                names.push(name.to_string_lossy().into_owned());
            }
        }
    }
    names.sort();
    Ok(names)
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
        let names = benchmarks(&root).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(names, ["fleet", "push"]);
    }
}
