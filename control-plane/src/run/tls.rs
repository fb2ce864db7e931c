//! TLS on what listens: reading the certificates, and reading them again when their files change.

mod watch;

use anyhow::Context;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use clairvoy_xds::{PemSource, Tls, TlsOptions};

use crate::config::{Config, ListenerTls};
use crate::push::Surface;

pub(super) use watch::watch;

/// The certificates of all addresses that speak TLS. Clones are handles of the same certificates.
#[derive(Clone, Debug, Default)]
pub(super) struct Listeners {
    pub(super) api: Option<Tls>,
    pub(super) xds: Option<Tls>,
    push_http: Option<Tls>,
    push_grpc: Option<Tls>,
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
        let (listen, push) = (&config.listen, &config.telemetry.push);
        // Not HTTP/2: a refusal that is sent before the body was read is lost to clients such as curl, which take the
        // end of the stream for an error.
        let http: &[&str] = &["http/1.1"];
        let grpc: &[&str] = &["h2"];
        listeners.api = listeners.read("listen.api_tls", listen.api_tls.as_ref(), http)?;
        listeners.xds = listeners.read("listen.xds_tls", listen.xds_tls.as_ref(), grpc)?;
        let files = push.tls.as_ref();
        listeners.push_http =
            listeners.read("telemetry.push.http", files.filter(|_| push.http.is_some()), http)?;
        listeners.push_grpc =
            listeners.read("telemetry.push.otlp_grpc", files.filter(|_| push.otlp_grpc.is_some()), grpc)?;
        Ok(listeners)
    }

    /// The certificates of an address for pushed telemetry.
    pub(super) fn push(&self, surface: Surface) -> Option<Tls> {
        match surface {
            Surface::Grpc => self.push_grpc.clone(),
            Surface::Http => self.push_http.clone(),
        }
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
