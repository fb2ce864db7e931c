//! Walking the sources, past everything that is built or fetched.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

const NOT_SOURCE: [&str; 3] = ["target", "node_modules", "dist"];

/// Returns all files below a folder, sorted, without hidden ones, built ones and those in the folders
/// named in `skip`.
pub(crate) fn sources(folder: &Path, skip: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(folder, skip, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, skip: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (name, path, kind) = (entry.file_name(), entry.path(), entry.file_type()?);
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if kind.is_file() {
            files.push(path);
        } else if kind.is_dir() {
            let named = NOT_SOURCE.contains(&&*name) || skip.contains(&&*name);
            // Cargo marks its target folders with this file, whatever they are called.
            if !named && !path.join("CACHEDIR.TAG").is_file() {
                collect(&path, skip, files)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn built_and_hidden_files_are_passed_over() {
        let root = env::temp_dir().join(format!("xtask-files-{}", std::process::id()));
        for file in [
            "src/b.ts",
            "src/a.ts",
            "dist/x.js",
            "node_modules/y/y.js",
            ".git/z",
            "e2e/page.mjs",
            "out/CACHEDIR.TAG",
            "out/w.rs",
        ] {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = sources(&root, &["e2e"]).unwrap();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, [root.join("src/a.ts"), root.join("src/b.ts")]);
    }
}
