use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{
    Config, Engine, GpuMetrics, GpuPageSettings, GpuPlace, LabelValues, MetricsAccess, Pool,
};

use super::alias::AliasPack;
use super::gpu::GpuSelector;
use super::limits::ConfiguredLimits;
use super::lookup::PackChoice;
use super::packs::{LLAMACPP, SGLANG, TGI, TRITON, TRTLLM, VLLM};
use super::settings;

/// Where the metrics of one backend are read, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ScrapeTarget {
    /// The backend's address, `host:port`, as configured; the name under which its samples come out.
    pub backend: Arc<str>,
    /// Its pool; scrapes at once are shared out among pools.
    pub pool: Arc<str>,
    /// URL of the engine's metrics page.
    pub url: String,
    /// What that page asks for.
    pub access: MetricsAccess,
    /// The names that are read on it.
    pub names: Arc<PackChoice>,
    /// Where the GPU gauge is.
    pub gpu: GpuPage,
    /// Which GPUs of the page are the backend's; none: all.
    pub gpus: Option<GpuSelector>,
    /// What is configured of the engine's limits.
    pub limits: ConfiguredLimits,
}

/// Where the GPU gauge of a backend is found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GpuPage {
    /// Nowhere.
    None,
    /// On the engine's own metrics page.
    #[default]
    Same,
    /// On a page of its own, usually the DCGM exporter's.
    Separate(String),
}

impl ScrapeTarget {
    /// The page `/metrics` on the backend's own port, of whatever engine, GPU gauge included.
    pub fn new(backend: Arc<str>) -> Self {
        let url = format!("http://{backend}/metrics");
        let names = Arc::new(PackChoice { gpu: true, ..PackChoice::default() });
        Self {
            backend,
            pool: Arc::default(),
            url,
            access: MetricsAccess::default(),
            names,
            gpu: GpuPage::Same,
            gpus: None,
            limits: ConfiguredLimits::default(),
        }
    }

    /// Reads the GPU gauge from elsewhere: a URL in which `{host}` and `{port}` stand for the backend's.
    #[must_use]
    pub fn with_gpu_template(mut self, template: &str) -> Self {
        self.gpu = GpuPage::Separate(expand(template, &self.backend));
        self.names = Arc::new(PackChoice { gpu: false, ..PackChoice::clone(&self.names) });
        self
    }
}

/// What the targets of a pool have in common, made once for all of them.
#[derive(Debug)]
pub struct PoolTargets<'a> {
    pool: &'a Pool,
    name: Arc<str>,
    names: Arc<PackChoice>,
}

impl<'a> PoolTargets<'a> {
    /// Takes the settings of a pool.
    pub fn new(pool: &'a Pool) -> Self {
        Self::serving(pool, None)
    }

    /// The same, with the model that the pool serves.
    pub fn of(config: &Config, pool: &'a Pool) -> Self {
        let model = config.models.iter().find(|model| model.pools.contains(&pool.name));
        Self::serving(pool, model.map(|model| model.name.clone()))
    }

    fn serving(pool: &'a Pool, model: Option<String>) -> Self {
        let custom = settings::custom(&pool.metrics);
        let names = PackChoice {
            engines: pack(pool.engine),
            gpu: gpu_page(&pool.gpu_metrics) == Some(None),
            custom: (!custom.is_empty()).then_some(custom),
            model,
        };
        Self { pool, name: pool.name.as_str().into(), names: Arc::new(names) }
    }

    /// The target of one of its backends.
    pub fn target(&self, address: SocketAddr) -> ScrapeTarget {
        let backend: Arc<str> = address.to_string().into();
        let template = self.pool.metrics_url.as_deref().unwrap_or(match self.pool.engine {
            // Triton's metrics have a port of their own.
            Engine::Triton => "http://{host}:8002/metrics",
            Engine::Trtllm => "http://{host}:{port}/prometheus/metrics",
            _ => "http://{host}:{port}/metrics",
        });
        let gpu = match gpu_page(&self.pool.gpu_metrics) {
            None => GpuPage::None,
            Some(None) => GpuPage::Same,
            Some(Some(template)) => GpuPage::Separate(expand(template, &backend)),
        };
        let gpus = match &self.pool.gpu_metrics {
            GpuMetrics::Page(settings) => selector(settings, &backend),
            GpuMetrics::Place(_) => None,
        };
        let limits = settings::limits(&self.pool.limits);
        let url = expand(template, &backend);
        let (pool, names) = (Arc::clone(&self.name), Arc::clone(&self.names));
        let access = self.pool.metrics_access.clone();
        ScrapeTarget { backend, pool, url, access, names, gpu, gpus, limits }
    }
}

fn pack(engine: Engine) -> Option<Vec<&'static AliasPack>> {
    Some(match engine {
        Engine::Auto => return None,
        Engine::Vllm => vec![&VLLM],
        Engine::Sglang => vec![&SGLANG],
        Engine::Tgi => vec![&TGI],
        Engine::Triton => vec![&TRITON],
        Engine::Trtllm => vec![&TRTLLM],
        Engine::Llamacpp => vec![&LLAMACPP],
        Engine::Custom => vec![],
    })
}

/// Where the gauge is: nowhere, on the engine's page, or at a URL.
fn gpu_page(settings: &GpuMetrics) -> Option<Option<&str>> {
    match settings {
        GpuMetrics::Place(GpuPlace::None) => None,
        GpuMetrics::Place(GpuPlace::Same) => Some(None),
        GpuMetrics::Page(GpuPageSettings { url, .. }) => Some(url.as_deref()),
    }
}

/// What is said for this backend, before what is said for all.
fn selector(settings: &GpuPageSettings, backend: &str) -> Option<GpuSelector> {
    let labels = settings.backends.get(backend).unwrap_or(&settings.labels);
    let values =
        |values: &LabelValues| values.iter().map(|value| expand(&value, backend)).collect::<Vec<_>>();
    (!labels.is_empty())
        .then(|| GpuSelector::new(labels.iter().map(|(label, wanted)| (label.clone(), values(wanted)))))
}

/// Puts host and port of a backend into a template; an IPv6 host keeps its brackets.
fn expand(template: &str, backend: &str) -> String {
    let (host, port) = match backend.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, port)
        }
        _ => (backend, ""),
    };
    template.replace("{host}", host).replace("{port}", port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(pool: &str) -> ScrapeTarget {
        let text = format!("models: [{{ name: m, pools: [p] }}]\npools:\n  - name: p\n{pool}");
        let config = crate::config::parse(&text).unwrap();
        PoolTargets::new(&config.pools[0]).target("10.0.0.1:8000".parse().unwrap())
    }

    #[test]
    fn templates_take_host_and_port() {
        assert_eq!(expand("http://{host}:9400/metrics", "10.0.0.1:8000"), "http://10.0.0.1:9400/metrics");
        assert_eq!(expand("http://gw/{host}/{port}", "[::1]:8000"), "http://gw/[::1]/8000");
        let target =
            ScrapeTarget::new("10.0.0.1:8000".into()).with_gpu_template("http://{host}:9400/metrics");
        assert_eq!(target.url, "http://10.0.0.1:8000/metrics");
        assert_eq!(target.gpu, GpuPage::Separate("http://10.0.0.1:9400/metrics".into()));
    }

    #[test]
    fn engines_have_their_pages() {
        let plain = ScrapeTarget { pool: "p".into(), ..ScrapeTarget::new("10.0.0.1:8000".into()) };
        assert_eq!(target(""), plain);
        assert_eq!(target("    engine: triton\n").url, "http://10.0.0.1:8002/metrics");
        assert_eq!(target("    engine: trtllm\n").url, "http://10.0.0.1:8000/prometheus/metrics");
        let own = "    engine: llamacpp\n    metrics_url: \"http://{host}:{port}/metrics?model=m\"\n";
        assert_eq!(target(own).url, "http://10.0.0.1:8000/metrics?model=m");
        assert_eq!(target("    engine: sglang\n").names.engines, Some(vec![&SGLANG]));
        let limits = target("    limits: { max_num_seqs: 256, max_num_batched_tokens: 8192 }\n").limits;
        assert_eq!(
            (limits.max_running, limits.token_budget, limits.blocks),
            (Some(256.0), Some(8192.0), None)
        );
    }

    #[test]
    fn gpus_are_chosen_for_all_or_for_one() {
        let gpus = |pool: &str| target(pool).gpus;
        let wanted = |label: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Some(GpuSelector::new([(label.to_owned(), values)]))
        };
        assert_eq!(gpus("    gpu_metrics: same\n"), None);
        let page = "    gpu_metrics:\n      url: \"http://{host}:9400/metrics\"\n";
        assert_eq!(gpus(page), None);
        let labels = format!("{page}      labels: {{ hostname: \"{{host}}\" }}\n");
        assert_eq!(gpus(&labels), wanted("hostname", &["10.0.0.1"]));
        let own = format!("{labels}      backends: {{ \"10.0.0.1:8000\": {{ gpu: [0, 1] }} }}\n");
        assert_eq!(gpus(&own), wanted("gpu", &["0", "1"]));
        assert_eq!(target(&own).gpu, GpuPage::Separate("http://10.0.0.1:9400/metrics".into()));
        assert!(!target(&own).names.gpu && target("    gpu_metrics: same\n").names.gpu);
        assert_eq!(target("    gpu_metrics: none\n").gpu, GpuPage::None);
    }
}
