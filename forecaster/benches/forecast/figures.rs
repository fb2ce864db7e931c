//! Benches in which criterion measures single functions, and what it found as a section of the page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use criterion::Criterion;

use crate::machine;
use crate::options::Options;

/// What is measured: group, name, what it is, and the goal in seconds.
pub(crate) type Measured = (&'static str, &'static str, &'static str, Option<f64>);

/// What the page says.
pub(crate) struct Section {
    pub(crate) heading: &'static str,
    /// The bench, as `cargo xtask bench` knows it.
    pub(crate) bench: &'static str,
    /// The unit in the head of the table, where the rows have none.
    pub(crate) unit: &'static str,
    pub(crate) measured: &'static [Measured],
    pub(crate) time: fn(f64) -> String,
    pub(crate) goal: fn(f64) -> String,
}

impl Options {
    /// Has criterion measure, and tells what it found.
    pub(crate) fn run(
        &self,
        section: &Section,
        measure: impl FnOnce(&mut Criterion) -> Result<()>,
    ) -> Result<()> {
        let machine = machine::describe();
        let folder = tempfile::tempdir().context("cannot make a folder for the figures")?;
        let mut criterion =
            Criterion::default().output_directory(folder.path()).without_plots().sample_size(20);
        criterion = criterion.measurement_time(Duration::from_secs(if self.quick { 1 } else { 5 }));
        measure(&mut criterion)?;
        self.tell(&section.text(folder.path(), &machine)?)
    }
}

impl Section {
    fn text(&self, folder: &Path, machine: &str) -> Result<String> {
        let Self { heading, bench, unit, .. } = self;
        let date = chrono::Utc::now().format("%Y-%m-%d");
        let mut text = format!(
            "## {heading}\n\nWritten by `cargo xtask bench {bench}` on {date}, on {machine}: one core, the mean of criterion's samples.\n\n\
             | | time{unit} | goal{unit} |\n| --- | --- | --- |\n"
        );
        for (group, name, what, goal) in self.measured {
            let file = folder.join(group).join(name).join("new/estimates.json");
            let read = fs::read(&file).with_context(|| format!("no figures in {}", file.display()))?;
            let estimates: serde_json::Value = serde_json::from_slice(&read)?;
            let nanoseconds =
                estimates["mean"]["point_estimate"].as_f64().context("criterion tells no mean")?;
            let seconds = 1e-9 * nanoseconds;
            let goal = goal.map_or("–".to_owned(), |goal| {
                format!("≤ {}: {}", (self.goal)(goal), if seconds <= goal { "met" } else { "missed" })
            });
            writeln!(text, "| {what} | {} | {goal} |", (self.time)(seconds))?;
        }
        Ok(text)
    }
}
