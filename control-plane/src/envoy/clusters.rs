/// Begins the names of static twins; no model's name begins with `!`.
const TWIN: &str = "!static/";

/// The name of the cluster that serves a model by capacity shares; the one by predictions has the model's name.
pub fn static_cluster(model: &str) -> String {
    format!("{TWIN}{model}")
}

/// The model that a cluster serves.
pub fn model_of_cluster(cluster: &str) -> &str {
    cluster.strip_prefix(TWIN).unwrap_or(cluster)
}

/// By which of a model's clusters a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// By that with shares by predictions.
    Steered,
    /// By its static twin.
    Unsteered,
}

/// The part that a cluster serves of a model's requests; none: it is no cluster of the model.
pub(super) fn part_of_cluster(cluster: &str, model: &str) -> Option<Part> {
    if cluster == model {
        Some(Part::Steered)
    } else {
        cluster.strip_prefix(TWIN).filter(|of| *of == model).map(|_| Part::Unsteered)
    }
}

/// The key of Envoy's runtime by which requests for a model take the cluster by predictions, in percent. Without it they
/// take the static one.
pub fn predictive_key(model: &str) -> String {
    format!("clairvoy.predictive.{model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clusters_of_a_model_are_its_own() {
        for model in ["chat", "org/model:1", "static/chat"] {
            assert_eq!(model_of_cluster(&static_cluster(model)), model);
            assert_eq!(model_of_cluster(model), model);
            assert_ne!(static_cluster(model), model);
            assert_eq!(part_of_cluster(model, model), Some(Part::Steered));
            assert_eq!(part_of_cluster(&static_cluster(model), model), Some(Part::Unsteered));
            assert_eq!(part_of_cluster("of-a-user", model), None);
        }
    }
}
