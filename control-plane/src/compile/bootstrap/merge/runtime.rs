use super::report::Report;
use super::sources::EndpointSource;
use super::{Map, MergeOptions, Serve, Tree};
use crate::compile::RUNTIME_LAYER;
use crate::compile::bootstrap::parts::{admin_layer, runtime_layer};

const LAYERS: &str = "layered_runtime.layers";

/// The runtime layer that Clairvoy keeps up while predictions are fresh. Without it Clairvoy's routes lead to the clusters
/// with capacity shares alone; routes of the user's own know nothing of it.
pub(super) fn merge(root: &mut Map, options: &MergeOptions, source: &EndpointSource, report: &mut Report) {
    if options.serve != Serve::All {
        report.warn(
            "routes of your own lead to a model's cluster, and keep the last shares when Clairvoy is gone: put a route with \
             `runtime_fraction: { default_value: {}, runtime_key: clairvoy.predictive.MODEL }` to MODEL before one to \
             \"!static/MODEL\", the same endpoints by capacity"
                .to_owned(),
        );
    }
    let Some(runtime) = report.child(root, "", "layered_runtime") else { return };
    let is_new = runtime.get("layers").is_none();
    let Some(layers) = report.list(runtime, "layered_runtime", "layers") else { return };
    let named = |layer: &Tree| layer.at(&["name"]).and_then(Tree::as_text) == Some(RUNTIME_LAYER);
    if let Some((index, found)) = layers.iter().enumerate().find(|(_, layer)| named(layer)) {
        let rtds = found.at(&["rtds_layer", "rtds_config"]);
        if !rtds.is_some_and(|config| source.is_ours(config)) {
            report.warn(format!(
                "{LAYERS}[{index}] is named {RUNTIME_LAYER} and does not come from Clairvoy: requests go by capacity shares, \
                 not by predictions; give it another name"
            ));
        }
        return;
    }
    // Of layers with one key the last wins, and what an operator sets by hand is to win.
    let admin = layers.iter().position(|layer| layer.at(&["admin_layer"]).is_some());
    let index = admin.unwrap_or(layers.len());
    layers.insert(index, Tree::from(runtime_layer(source.config.clone())));
    report.change(format!(
        "{LAYERS}[{index}]: added, {RUNTIME_LAYER}, kept up by Clairvoy while predictions are fresh; without it requests go by capacity shares"
    ));
    if is_new {
        // Envoy has one by itself where no layers are named.
        layers.push(Tree::from(admin_layer()));
        report.change(format!("{LAYERS}[1]: added, the admin interface's, as without layers"));
    }
}
