use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;

use crate::run::{Overrides, serve};

use super::ConfigFile;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Address of the dashboard and the API, instead of `listen.api`.
    #[arg(long, env = "CLAIRVOY_LISTEN_API", value_name = "IP:PORT")]
    listen_api: Option<SocketAddr>,
    /// Address of the discovery server, instead of `listen.xds`.
    #[arg(long, env = "CLAIRVOY_LISTEN_XDS", value_name = "IP:PORT")]
    listen_xds: Option<SocketAddr>,
    /// Write logs as JSON.
    #[arg(long, env = "CLAIRVOY_LOG_JSON")]
    log_json: bool,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    log(arguments.log_json);
    let overrides = Overrides {
        data_dir: arguments.file.data_dir,
        database_url: arguments.file.database_url,
        api: arguments.listen_api,
        xds: arguments.listen_xds,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("serve")
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(arguments.file.config, overrides))?;
    Ok(ExitCode::SUCCESS)
}

/// Logs go to standard error; `RUST_LOG` chooses what, `info` by default.
fn log(json: bool) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { builder.json().init() } else { builder.with_target(false).init() }
}
