//! `clairvoy canary`: what operators do about canaries.

use std::process::ExitCode;

use clap::Subcommand;

use crate::config;
use crate::run::Overrides;

use super::ConfigFile;
use super::api::{Api, ApiArguments};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Have predictions steer the canary of a model again, after it has stepped back.
    ///
    /// Evidence is gathered from nothing again. Changing `rung` or `canary` of the model does the same.
    Resume(Resume),
}

#[derive(Debug, clap::Args)]
struct Resume {
    /// The model.
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    api: ApiArguments,
    #[command(flatten)]
    file: ConfigFile,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Action::Resume(Resume { model, api, file }) = arguments.action;
    let overrides = Overrides { data_dir: file.data_dir, api: api.listen_api, ..Overrides::default() };
    let config = overrides.apply(config::load(&file.config)?);
    let api = Api::new(&api, &config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(api.resume_canary(&model))?;
    println!("predictions steer the canary of model {model} again");
    Ok(ExitCode::SUCCESS)
}
