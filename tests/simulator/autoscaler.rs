//! A stand-in for the system that starts and stops model servers: it takes Clairvoy's webhooks and acts on them.
//!
//! A webhook is believed when its signature is right (see [`verify`]), then the pool of its subject is brought to the
//! size it asks for: new backends are launched and registered once they are healthy; surplus ones are drained through the
//! API, left alone until idle, removed and stopped. What a backend is, and how one starts, is the [`Launcher`]'s business.

mod event;
mod receiver;
mod registrar;
mod scaling;
mod signature;

#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::{
    event::ReplicaPlan,
    receiver::WebhookCounts,
    registrar::Registrar,
    scaling::{Launcher, Progress},
    signature::{MAX_AGE_SECONDS, Refusal, Secret, SignedHeaders, verify},
};
use self::{receiver::Receiver, scaling::Pools};

/// What an [`Autoscaler`] needs to start.
pub struct AutoscalerConfig {
    /// Where webhooks are taken, at `/hook`.
    pub listen: SocketAddr,
    /// The secret shared with the sender.
    pub secret: Secret,
    /// The pools and the backends they begin with; webhooks about other pools are refused.
    pub pools: Vec<(String, Vec<SocketAddr>)>,
    /// Clairvoy's API.
    pub registrar: Registrar,
    /// Told of each step as it happens; must return at once.
    pub on_progress: Arc<dyn Fn(&Progress) + Send + Sync>,
}

/// A running webhook receiver and the pools that it sizes. Stops when dropped.
#[derive(Debug)]
pub struct Autoscaler {
    address: SocketAddr,
    receiver: Arc<Receiver>,
    stop: CancellationToken,
    server: JoinHandle<()>,
    pools: Pools,
}

impl Autoscaler {
    /// Listens for webhooks.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start<L: Launcher>(config: AutoscalerConfig, launcher: Arc<L>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen for webhooks on {}", config.listen))?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let pools = Pools::start(config.pools, &launcher, &config.registrar, &config.on_progress, &stop);
        let receiver = Arc::new(Receiver::new(config.secret, pools.targets(), config.on_progress));
        let router = receiver::router(Arc::clone(&receiver));
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            // An error here means that the listener is gone, which the counts will show.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stopped).await;
        });
        Ok(Self { address, receiver, stop, server, pools })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many webhooks came, and what became of them.
    pub fn counts(&self) -> WebhookCounts {
        self.receiver.counts()
    }

    /// Takes no more webhooks and stops changing pools; the backends stay as they are.
    pub async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.server).await;
        self.pools.wait().await;
    }
}

impl Drop for Autoscaler {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
