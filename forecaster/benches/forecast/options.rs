//! Options of a bench that writes a section of the page.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// How long it runs, and where its section goes.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A second for each instead of five
    #[arg(long)]
    pub(crate) quick: bool,
    /// Write the section of the page to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Prints the section, and writes it where it is wanted.
    pub(crate) fn tell(&self, section: &str) -> Result<()> {
        println!("{section}");
        if let Some(file) = &self.write {
            fs::write(file, section).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}
