use super::labels::Labels;

/// Which GPUs of a page are a backend's: each label named here must have one of the values.
///
/// Names are compared without regard to case (`hostname`, formerly `Hostname`) and also with `exported_` before them,
/// which Prometheus adds when it hands the page on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GpuSelector {
    wanted: Vec<(String, Vec<String>)>,
}

impl GpuSelector {
    /// Selects by labels and their possible values; nothing wanted selects all.
    pub fn new(wanted: impl IntoIterator<Item = (String, Vec<String>)>) -> Self {
        Self { wanted: wanted.into_iter().collect() }
    }

    /// Tells whether a series with these labels is selected.
    pub fn selects(&self, labels: Labels<'_>) -> bool {
        let has = |(wanted, values): &(String, Vec<String>)| {
            labels.iter().any(|(name, value)| {
                let name = name.strip_prefix("exported_").unwrap_or(&name);
                name.eq_ignore_ascii_case(wanted) && values.iter().any(|known| *known == *value)
            })
        };
        self.wanted.iter().all(has)
    }
}
