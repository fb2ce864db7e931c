//! The dashboard: npm is run here and nowhere else. The Rust build only embeds what it finds in `dist`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::node::Node;
use crate::stamp::Stamp;
use crate::workspace::Workspace;
use crate::{files, sh};

/// What [`ensure`] found or did.
pub(crate) enum Presence {
    /// There are no sources.
    NoSources,
    /// `dist` is what the sources make.
    Ready,
    /// `dist` was built now, in so many seconds.
    Built(f64),
}

/// Returns the folder of the dashboard's sources, if this checkout has them.
pub(crate) fn folder(workspace: &Workspace) -> Option<PathBuf> {
    let folder = workspace.root().join("dashboards/web");
    folder.join("package.json").is_file().then_some(folder)
}

/// Builds the dashboard unless `dist` is what the current sources make.
pub(crate) fn ensure(workspace: &Workspace) -> Result<Presence> {
    let Some(folder) = folder(workspace) else { return Ok(Presence::NoSources) };
    let mark = workspace.tools().join("dashboard.stamp");
    // The page tests do not change what is built.
    let sources = files::sources(&folder, &["e2e"])?;
    let sources = Stamp::new().with_files(&folder, &sources)?;
    if built_from(sources, &folder)?.is_some_and(|stamp| stamp.matches(&mark)) {
        return Ok(Presence::Ready);
    }
    println!("  building the dashboard …");
    let started = Instant::now();
    let node = modules(workspace, &folder)?;
    let build = sh::output(&mut node.npm(&folder, &["run", "--silent", "build"])?)?;
    if !build.success {
        bail!("`npm run build` failed in dashboards/web:\n{}{}", build.stdout, build.stderr);
    }
    let Some(stamp) = built_from(sources, &folder)? else {
        bail!("`npm run build` left no dashboards/web/dist/index.html");
    };
    fs::create_dir_all(workspace.tools())?;
    stamp.write(&mark)?;
    Ok(Presence::Built(started.elapsed().as_secs_f64()))
}

/// Installs what `package-lock.json` pins into `node_modules`, unless it is there.
pub(crate) fn modules(workspace: &Workspace, folder: &Path) -> Result<Node> {
    let node = Node::ensure(workspace)?;
    // Inside the folder it speaks of: who deletes `node_modules` deletes the stamp with it.
    let mark = folder.join("node_modules/.stamp");
    let stamp = Stamp::new().with_files(folder, &[folder.join("package-lock.json")])?;
    if !stamp.matches(&mark) {
        println!("  installing the dashboard's packages …");
        sh::run(&mut node.npm(folder, &["ci", "--no-audit", "--no-fund", "--loglevel=error"])?).context(
            "npm cannot install the dashboard's packages, for the reason above; is the network there?",
        )?;
        stamp.write(&mark)?;
    }
    Ok(node)
}

/// Returns a stamp over the sources and what was built from them; `None` where nothing is built. The
/// built files count too: the Rust build puts a stand-in page where there is none.
fn built_from(sources: Stamp, folder: &Path) -> Result<Option<Stamp>> {
    let dist = folder.join("dist");
    if !dist.join("index.html").is_file() {
        return Ok(None);
    }
    let built = files::sources(&dist, &[])?;
    Ok(Some(sources.with_files(folder, &built)?))
}
