mod merge;
mod tls;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::compile::{BootstrapOptions, Variant, XdsAddress, bootstrap};

const NODE_CLUSTER: &str = "edge";
const XDS: &str = "127.0.0.1:18000";
const ADMIN: &str = "127.0.0.1:9901";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// `node.id` of the Envoy, unique in the fleet [default: the host's name].
    #[arg(long, value_name = "ID")]
    node_id: Option<String>,
    /// `node.cluster` of the Envoy: which gateway's listener it opens [default: edge].
    #[arg(long, value_name = "NAME")]
    node_cluster: Option<String>,
    /// Region of the Envoy.
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// Zone of the Envoy.
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Clairvoy's discovery server (`listen.xds`) [default: 127.0.0.1:18000].
    #[arg(long, value_name = "HOST:PORT")]
    xds: Option<String>,
    /// Envoy's admin address; `none` for no admin interface [default: 127.0.0.1:9901; with --merge: that of the file].
    #[arg(long, value_name = "IP:PORT|none")]
    admin: Option<String>,
    /// Environment variable with the token of the discovery server. The token becomes part of the file: keep it private.
    #[arg(long, value_name = "VARIABLE")]
    token_env: Option<String>,
    /// How Envoy is told of changes [default: delta; with --merge: as in the file].
    #[arg(long, value_name = "VARIANT")]
    variant: Option<VariantName>,
    #[command(flatten)]
    tls: tls::TlsArguments,
    #[command(flatten)]
    merge: merge::MergeArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VariantName {
    /// Only what has changed (`DELTA_GRPC`).
    Delta,
    /// All resources of a type each time, the state of the world (`GRPC`).
    Sotw,
}

impl From<VariantName> for Variant {
    fn from(name: VariantName) -> Self {
        match name {
            VariantName::Delta => Self::Delta,
            VariantName::Sotw => Self::Sotw,
        }
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.merge.is_asked_for() {
        merge::run(arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let options = BootstrapOptions {
        node_id: arguments.node_id.unwrap_or_else(host_name),
        node_cluster: arguments.node_cluster.unwrap_or_else(|| NODE_CLUSTER.to_owned()),
        region: arguments.region.unwrap_or_default(),
        zone: arguments.zone.unwrap_or_default(),
        xds: xds_address(arguments.xds.as_deref().unwrap_or(XDS))?,
        tls: arguments.tls.read(),
        variant: arguments.variant.map(Variant::from).unwrap_or_default(),
        admin: admin_address(arguments.admin.as_deref().unwrap_or(ADMIN))?,
        token: token(arguments.token_env)?,
    };
    print!("{}", bootstrap(&options).context("cannot write the bootstrap")?);
    Ok(ExitCode::SUCCESS)
}

fn xds_address(text: &str) -> anyhow::Result<XdsAddress> {
    let (host, port) = text.rsplit_once(':').context("--xds needs HOST:PORT")?;
    let host = host.trim_matches(['[', ']']);
    let port = port.parse().with_context(|| format!("--xds: {port:?} is no port"))?;
    if host.is_empty() {
        bail!("--xds needs a host before the port");
    }
    Ok(XdsAddress { host: host.to_owned(), port })
}

fn admin_address(text: &str) -> anyhow::Result<Option<SocketAddr>> {
    match text {
        "none" => Ok(None),
        address => Ok(Some(
            address.parse().with_context(|| format!("--admin: {address:?} is neither IP:PORT nor none"))?,
        )),
    }
}

fn token(variable: Option<String>) -> anyhow::Result<Option<String>> {
    let read = |name: String| {
        std::env::var(&name).with_context(|| format!("--token-env: environment variable {name} is not set"))
    };
    variable.map(read).transpose()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
