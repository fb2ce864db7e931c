use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use super::{NODE_CLUSTER, XDS, admin_address, host_name, token, xds_address};
use crate::compile::{ClusterChoice, Format, MergeOptions, NodeOptions, Serve, Variant, merge};
use crate::config;

/// Files beyond this are refused; bootstraps with thousands of clusters fit in it.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "For an Envoy that runs already")]
pub(super) struct MergeArguments {
    /// The bootstrap of an Envoy of yours, YAML or JSON (`.json`), to merge Clairvoy into.
    ///
    /// Everything in it stays, except for what the summary on stderr names. The result goes to stdout in the same format.
    /// Comments are lost, and YAML anchors are written out. What would replace a choice of yours is an error that says
    /// where, unless --force is given.
    #[arg(long, value_name = "FILE", requires = "serve")]
    merge: Option<PathBuf>,
    /// What the Envoy takes from Clairvoy.
    #[arg(long, value_name = "WHAT", requires = "merge")]
    serve: Option<ServeName>,
    /// A cluster of the file that takes its endpoints from Clairvoy: those of the model of its name, or of MODEL. Repeatable.
    ///
    /// Default, for --serve eds: the clusters named like a model of --config, and those of type EDS without an eds_config.
    /// The cluster's load_assignment is removed. Its load balancing policy becomes the one of Clairvoy's own clusters
    /// (least request, with the weights of localities), unless --keep-lb is given; everything else in it stays.
    #[arg(long, value_name = "NAME[=MODEL]", requires = "merge")]
    cluster: Vec<String>,
    /// Clairvoy's configuration file, for --merge to know the models.
    #[arg(long, value_name = "FILE", env = "CLAIRVOY_CONFIG")]
    config: Option<PathBuf>,
    /// Leave the load balancing policy of the clusters as it is. Without the weights of localities
    /// (`locality_weighted_lb_config`) Clairvoy's shares have no effect there.
    #[arg(long, requires = "merge")]
    keep_lb: bool,
    /// Replace what the file says otherwise.
    #[arg(long, requires = "merge")]
    force: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServeName {
    /// Endpoints with their weights, for clusters of the file.
    Eds,
    /// Clusters and their endpoints, for routes of the file to name.
    #[value(name = "cds+eds")]
    CdsEds,
    /// Listeners, routes, clusters and endpoints, beside those of the file.
    All,
}

impl From<ServeName> for Serve {
    fn from(name: ServeName) -> Self {
        match name {
            ServeName::Eds => Self::Eds,
            ServeName::CdsEds => Self::CdsEds,
            ServeName::All => Self::All,
        }
    }
}

impl MergeArguments {
    pub(super) fn is_asked_for(&self) -> bool {
        self.merge.is_some()
    }
}

/// Prints the merged file, and a summary on stderr.
pub(super) fn run(arguments: super::Arguments) -> anyhow::Result<()> {
    let super::Arguments { merge: own, .. } = &arguments;
    let (Some(path), Some(serve)) = (&own.merge, own.serve) else { bail!("--merge needs --serve") };
    let models = own.config.as_deref().map(config::load).transpose()?;
    let options = MergeOptions {
        serve: serve.into(),
        variant: arguments.variant.map(Variant::from),
        node: NodeOptions {
            id: arguments.node_id.clone(),
            cluster: arguments.node_cluster.clone(),
            region: arguments.region.clone(),
            zone: arguments.zone.clone(),
        },
        default_node_id: host_name(),
        default_node_cluster: NODE_CLUSTER.to_owned(),
        xds: arguments.xds.as_deref().map(xds_address).transpose()?,
        default_xds: xds_address(XDS)?,
        tls: arguments.tls.read(),
        admin: arguments.admin.as_deref().map(admin_address).transpose()?.flatten(),
        token: token(arguments.token_env.clone())?,
        clusters: own.cluster.iter().map(|text| choice(text)).collect::<anyhow::Result<_>>()?,
        models: models.map(|config| config.models.into_iter().map(|model| model.name).collect()),
        keep_lb: own.keep_lb,
        force: own.force,
    };
    let text = read(path)?;
    let merged = merge(&text, format_of(path)?, &options)
        .with_context(|| format!("{} cannot be merged", path.display()))?;
    for change in &merged.changes {
        eprintln!("changed: {change}");
    }
    if merged.changes.is_empty() {
        eprintln!("changed: nothing, it is all there");
    }
    for warning in &merged.warnings {
        eprintln!("warning: {warning}");
    }
    print!("{}", merged.text);
    Ok(())
}

fn choice(text: &str) -> anyhow::Result<ClusterChoice> {
    let (name, model) = match text.split_once('=') {
        Some((name, model)) => (name, Some(model)),
        None => (text, None),
    };
    if name.is_empty() || model == Some("") {
        bail!("--cluster {text}: needs NAME or NAME=MODEL");
    }
    Ok(ClusterChoice { name: name.to_owned(), model: model.map(str::to_owned) })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {name}"))?;
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("{name} has more than {MAX_FILE_BYTES} bytes");
    }
    Ok(text)
}

/// As Envoy tells it: by the end of the name.
fn format_of(path: &Path) -> anyhow::Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => Ok(Format::Json),
        Some("pb" | "pb_text") => bail!("{}: only YAML and JSON can be merged", path.display()),
        _ => Ok(Format::Yaml),
    }
}
