//! Merging Clairvoy into the bootstrap of an Envoy that runs already: whatever its file holds stays, and only what is
//! asked for is added or changed. Every change is told, and what would overwrite a choice of the user is a fault.

mod clusters;
mod node;
mod policy;
mod report;
mod routes;
mod runtime;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use thiserror::Error;

use super::parts::{Variant, XdsAddress, XdsTls};
use super::read::{Format, SyntaxError, read};
use super::tree::{Map, Tree};

use report::Report;

/// What an Envoy takes from Clairvoy; the rest of it is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serve {
    /// Endpoints with their weights, for clusters of its own.
    Eds,
    /// Clusters and their endpoints.
    CdsEds,
    /// Listeners, routes, clusters and endpoints.
    All,
}

/// A cluster of the file that is to take its endpoints from Clairvoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterChoice {
    /// Its name in the file.
    pub name: String,
    /// The model whose backends it takes; none: the one of its `service_name`, or of its own name.
    pub model: Option<String>,
}

/// Who the Envoy is. What is `None` stays as it is in the file.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// `node.id`.
    pub id: Option<String>,
    /// `node.cluster`; decides which gateway's resources the Envoy gets.
    pub cluster: Option<String>,
    /// `node.locality.region`.
    pub region: Option<String>,
    /// `node.locality.zone`.
    pub zone: Option<String>,
}

/// How to merge.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// What the Envoy takes from Clairvoy.
    pub serve: Serve,
    /// How it is told of changes; none: as in the file, else delta.
    pub variant: Option<Variant>,
    /// Who it is to be.
    pub node: NodeOptions,
    /// `node.id` where neither the file nor `node` has one: Envoy does not start without.
    pub default_node_id: String,
    /// `node.cluster` where neither the file nor `node` has one.
    pub default_node_cluster: String,
    /// Clairvoy's discovery server; none: as in the file, else `default_xds`.
    pub xds: Option<XdsAddress>,
    /// Clairvoy's discovery server where neither the file nor `xds` names it.
    pub default_xds: XdsAddress,
    /// TLS on the way to it; none: as in the file, else clear text.
    pub tls: Option<XdsTls>,
    /// Envoy's admin address; none: as in the file.
    pub admin: Option<SocketAddr>,
    /// Bearer token for the discovery server.
    pub token: Option<String>,
    /// The clusters that take their endpoints from Clairvoy. Empty, and `serve` is [`Serve::Eds`]: those that have
    /// the name of a model in `models`, and those of type EDS that do not say where their endpoints come from.
    pub clusters: Vec<ClusterChoice>,
    /// The models of Clairvoy, where they are known.
    pub models: Option<BTreeSet<String>>,
    /// Leaves the load balancing policy of those clusters as it is.
    pub keep_lb: bool,
    /// Replaces what the file has otherwise.
    pub force: bool,
}

/// A merged bootstrap.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The file, in the format of the one that was read. Comments are not kept, and anchors are written out.
    pub text: String,
    /// What was changed, one sentence each, with the place.
    pub changes: Vec<String>,
    /// What may not do what the user expects.
    pub warnings: Vec<String>,
}

/// Why a bootstrap could not be merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// It could not be read.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// What is asked for does not fit to what the file holds.
    #[error("{}", faults.join("\n"))]
    Refused {
        /// Each fault with its place and a way to mend it.
        faults: Vec<String>,
    },
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Write(String),
}

/// Merges Clairvoy into the text of a bootstrap file.
pub fn merge(text: &str, format: Format, options: &MergeOptions) -> Result<Merged, MergeError> {
    let mut root = match read(text, format)? {
        Tree::Map(root) => root,
        Tree::Null => Map::default(),
        other => {
            let fault = format!("the file holds {}, and a bootstrap is a map", other.kind());
            return Err(MergeError::Refused { faults: vec![fault] });
        }
    };
    let mut report = Report::new(options.force);
    apply(&mut root, options, &mut report);
    let (changes, warnings) = report.finish().map_err(|faults| MergeError::Refused { faults })?;
    let text = write(&Tree::Map(root), format).map_err(MergeError::Write)?;
    Ok(Merged { text, changes, warnings })
}

fn apply(root: &mut Map, options: &MergeOptions, report: &mut Report) {
    node::merge(root, options, report);
    let Some(ads) = sources::merge(root, options, report) else { return };
    runtime::merge(root, options, &ads, report);
    clusters::merge(root, options, ads, report);
    if options.serve != Serve::Eds {
        routes::merge(root, report);
    }
}

pub(super) fn write(tree: &Tree, format: Format) -> Result<String, String> {
    match format {
        Format::Json => {
            serde_json::to_string_pretty(tree).map(|text| text + "\n").map_err(|error| error.to_string())
        }
        Format::Yaml => {
            // Folded text would be long lines wrapped for no reader; literal blocks stay for scripts.
            let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
            serde_saphyr::to_string_with_options(tree, options).map_err(|error| error.to_string())
        }
    }
}
