//! Judges the forecasts on public traces, beside simple ones and recorded figures of peers:
//! `cargo xtask bench forecast`.

mod data;
mod demand;
mod goals;
mod machine;
mod memory;
mod options;
mod replicas;
mod waits;

use anyhow::{Result, bail};
use clap::Parser;

use crate::goals::Goals;
use crate::options::Options;

/// Judges the forecasts of demand and of waits on public traces.
#[derive(Parser)]
#[command(mut_arg("quick", |quick| quick.help(QUICK)))]
struct Args {
    #[command(flatten)]
    options: Options,
}

/// What `--quick` does here.
const QUICK: &str = "A few series and rows, in seconds: to see that all is well, not to compare";

/// How much of the record `--quick` takes.
const QUICK_SERIES: usize = 3;
const QUICK_ROWS: usize = 1000;
const QUICK_MODELS: usize = 3;

/// Models whose memory is measured.
const MODELS: usize = 200;

fn main() -> Result<()> {
    let Args { options } = Args::parse();
    if options.quick && options.write.is_some() {
        bail!("a quick run has no page: --quick and --write exclude each other");
    }
    let machine = machine::describe();
    let mut series = data::demand("demand_10min.csv")?;
    let mut servers = data::servers()?;
    if options.quick {
        series.truncate(QUICK_SERIES);
        servers.truncate(1);
        servers.iter_mut().for_each(|rows| rows.truncate(QUICK_ROWS));
    }
    let mut goals = Goals::default();
    let models = if options.quick { QUICK_MODELS } else { MODELS };
    let memory = memory::table(&series, models, &mut goals)?;
    let parts = [
        demand::fortnight(&series, &mut goals)?,
        demand::one_day(&mut goals)?,
        waits::tables(&servers, &mut goals)?,
        memory,
    ];
    let report = format!("{}\n{}", head(&machine, &goals), parts.join("\n"));
    options.tell(&report)?;
    if options.quick {
        println!("A quick run: a few series and rows, so figures and goals say nothing.");
    }
    Ok(())
}

fn head(machine: &str, goals: &Goals) -> String {
    let date = chrono::Utc::now().format("%Y-%m-%d");
    format!(
        "## Forecasts

Written by `cargo xtask bench forecast` on {date}, on {machine}. The data are in
`forecaster/data`, with their sources and licences.

**The constants of our forecasters were chosen on these very data, so our rows are optimistic**; on a series of your own expect
somewhat worse. The peers ran with stock settings, elsewhere, on the same series and origins, and were not tuned on them.

{}
",
        goals.summary()
    )
}
