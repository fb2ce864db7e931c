use std::sync::Arc;

/// Where the metrics of one backend are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrapeTarget {
    /// The backend's address, `host:port`, as configured; the name under which its samples come out.
    pub backend: Arc<str>,
    /// URL of the engine's metrics page.
    pub url: String,
    /// Where the GPU gauge is.
    pub gpu: GpuPage,
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
    /// The page `/metrics` on the backend's own port, GPU gauge included.
    pub fn new(backend: Arc<str>) -> Self {
        let url = format!("http://{backend}/metrics");
        Self { backend, url, gpu: GpuPage::Same }
    }

    /// Reads the GPU gauge from elsewhere: a URL in which `{host}` and `{port}` stand for the backend's.
    #[must_use]
    pub fn with_gpu_template(mut self, template: &str) -> Self {
        self.gpu = GpuPage::Separate(expand(template, &self.backend));
        self
    }
}

/// Puts host and port of a backend into a URL template; an IPv6 host keeps its brackets.
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

    #[test]
    fn templates_take_host_and_port() {
        assert_eq!(expand("http://{host}:9400/metrics", "10.0.0.1:8000"), "http://10.0.0.1:9400/metrics");
        assert_eq!(expand("http://gw/{host}/{port}", "[::1]:8000"), "http://gw/[::1]/8000");
        let target =
            ScrapeTarget::new("10.0.0.1:8000".into()).with_gpu_template("http://{host}:9400/metrics");
        assert_eq!(target.url, "http://10.0.0.1:8000/metrics");
        assert_eq!(target.gpu, GpuPage::Separate("http://10.0.0.1:9400/metrics".into()));
    }
}
