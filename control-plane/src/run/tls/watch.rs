use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::ListenerTls;

use super::{Listeners, TlsMetrics, Watched};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Changes with a file, also when it is replaced by one of the same time and length.
type Stamp = Option<(u64, i64, i64, u64)>;

/// Reads certificates again when their files change, until `stop`. Those that do not fit together leave the earlier ones in
/// use.
pub(in crate::run) async fn watch(listeners: Listeners, metrics: TlsMetrics, stop: CancellationToken) {
    let mut watched: Vec<File> = listeners.watched.into_iter().map(File::new).collect();
    if watched.is_empty() {
        return stop.cancelled().await;
    }
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let metrics = metrics.clone();
        let looked = tokio::task::spawn_blocking(move || {
            watched.iter_mut().for_each(|file| file.look(&metrics));
            watched
        });
        let Ok(back) = looked.await else { return };
        watched = back;
    }
}

struct File {
    watched: Watched,
    seen: [Stamp; 3],
    last: [Stamp; 3],
}

impl File {
    fn new(watched: Watched) -> Self {
        let seen = stamps(&watched.files);
        Self { watched, seen, last: seen }
    }

    fn look(&mut self, metrics: &TlsMetrics) {
        let found = stamps(&self.watched.files);
        // Twice the same: a certificate is not read before its key is there, too.
        let is_settled = found == self.last;
        self.last = found;
        if found == self.seen || !is_settled {
            return;
        }
        self.seen = found;
        let Watched { field, tls, .. } = &self.watched;
        match tls.reload() {
            Ok(()) => {
                tracing::info!(listener = field, "certificates were read again");
                metrics.reloaded(field, "taken");
            }
            Err(error) => {
                tracing::error!(listener = field, %error, "new certificates cannot be used: the earlier ones stay in use");
                metrics.reloaded(field, "refused");
            }
        }
    }
}

fn stamps(files: &ListenerTls) -> [Stamp; 3] {
    let stamp = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    [stamp(&files.certificate), stamp(&files.private_key), files.client_ca.as_deref().and_then(stamp)]
}
