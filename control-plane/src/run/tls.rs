//! TLS on what listens: reading the certificates, reading them again when their files change, and a listener for the API.

mod accept;
mod watch;

use anyhow::Context;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use clairvoy_xds::{PemSource, Tls, TlsOptions};

use crate::config::{Config, ListenerTls};

pub(super) use accept::TlsListener;
pub(super) use watch::watch;

/// The certificates of all addresses that speak TLS. Clones are handles of the same certificates.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    pub(super) api: Option<Tls>,
    pub(super) xds: Option<Tls>,
    pub(super) push: Option<Tls>,
    watched: Vec<Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    field: &'static str,
    files: ListenerTls,
    tls: Tls,
}

impl Listeners {
    /// Reads the certificates that the configuration names.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let mut listeners = Self::default();
        let either: &[&str] = &["h2", "http/1.1"];
        let push = &config.telemetry.push.tls;
        listeners.api = listeners.read("listen.api_tls", config.listen.api_tls.as_ref(), either)?;
        listeners.xds = listeners.read("listen.xds_tls", config.listen.xds_tls.as_ref(), &["h2"])?;
        listeners.push = listeners.read("telemetry.push.tls", push.as_ref(), either)?;
        Ok(listeners)
    }

    fn read(
        &mut self,
        field: &'static str,
        files: Option<&ListenerTls>,
        protocols: &[&str],
    ) -> anyhow::Result<Option<Tls>> {
        let Some(files) = files else { return Ok(None) };
        let options = TlsOptions {
            certificate_chain: PemSource::File(files.certificate.clone()),
            private_key: PemSource::File(files.private_key.clone()),
            client_ca: files.client_ca.clone().map(PemSource::File),
        };
        let tls = Tls::with_protocols(options, protocols)
            .with_context(|| format!("cannot speak TLS ({field} in the configuration)"))?;
        self.watched.push(Watched { field, files: files.clone(), tls: tls.clone() });
        Ok(Some(tls))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    listener: &'static str,
    outcome: &'static str,
}

/// How often certificates were read again.
#[derive(Clone, Debug, Default)]
pub(super) struct TlsMetrics {
    reloads: Family<Labels, Counter>,
}

impl TlsMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let help = "Certificates read again after a change of their files, by what came of it";
        registry.register("clairvoy_tls_reloads", help, metrics.reloads.clone());
        metrics
    }

    fn reloaded(&self, listener: &'static str, outcome: &'static str) {
        self.reloads.get_or_create(&Labels { listener, outcome }).inc();
    }
}
