use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::compile::{BootstrapOptions, bootstrap};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// `node.id` of the Envoy, unique in the fleet [default: the host's name].
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// `node.cluster` of the Envoy: which gateway's listener it opens.
    #[arg(long, default_value = "edge", value_name = "NAME")]
    node_cluster: String,
    /// Region of the Envoy.
    #[arg(long, default_value = "", value_name = "NAME")]
    region: String,
    /// Zone of the Envoy.
    #[arg(long, default_value = "", value_name = "NAME")]
    zone: String,
    /// Clairvoy's discovery server (`listen.xds`).
    #[arg(long, default_value = "127.0.0.1:18000", value_name = "HOST:PORT")]
    xds: String,
    /// Envoy's admin address; `none` for no admin interface.
    #[arg(long, default_value = "127.0.0.1:9901", value_name = "IP:PORT|none")]
    admin: String,
    /// Environment variable with the token of the discovery server. The token becomes part of the file: keep it private.
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (host, port) = arguments.xds.rsplit_once(':').context("--xds needs HOST:PORT")?;
    let host = host.trim_matches(['[', ']']);
    let port = port.parse().with_context(|| format!("--xds: {port:?} is no port"))?;
    if host.is_empty() {
        bail!("--xds needs a host before the port");
    }
    let admin: Option<SocketAddr> = match arguments.admin.as_str() {
        "none" => None,
        address => Some(
            address.parse().with_context(|| format!("--admin: {address:?} is neither IP:PORT nor none"))?,
        ),
    };
    let token = arguments.token_env.map(|name| {
        std::env::var(&name).with_context(|| format!("--token-env: environment variable {name} is not set"))
    });
    let options = BootstrapOptions {
        node_id: arguments.node_id.unwrap_or_else(host_name),
        node_cluster: arguments.node_cluster,
        region: arguments.region,
        zone: arguments.zone,
        xds_host: host.to_owned(),
        xds_port: port,
        admin,
        token: token.transpose()?,
    };
    print!("{}", bootstrap(&options).context("cannot write the bootstrap")?);
    Ok(ExitCode::SUCCESS)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
