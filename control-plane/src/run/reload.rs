use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, ConfigError};

use super::Overrides;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Watches the configuration file and hands over every change: the new configuration, or why it was refused.
pub(super) async fn watch(
    path: PathBuf,
    overrides: Overrides,
    changes: mpsc::Sender<Result<Arc<Config>, ConfigError>>,
    stop: CancellationToken,
) {
    let mut seen = stamp(&path);
    let mut last = seen;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let found = stamp(&path);
        // Twice the same: a file that is being written is not read halfway.
        let settled = found == last;
        last = found;
        if found == seen || found.is_none() || !settled {
            continue;
        }
        seen = found;
        let loading = path.clone();
        let Ok(loaded) = tokio::task::spawn_blocking(move || config::load(&loading)).await else { continue };
        if changes.send(loaded.map(|config| Arc::new(overrides.apply(config)))).await.is_err() {
            return;
        }
    }
}

/// Changes with the file; none while it is not there, as between the two halves of a replacement.
fn stamp(path: &PathBuf) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Settings that cannot change while the process runs, by name.
pub(super) fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut fields = Vec::new();
    if old.listen != new.listen {
        fields.push("listen");
    }
    if old.database.url != new.database.url
        || old.database.postgres_bin != new.database.postgres_bin
        || old.database.retention != new.database.retention
    {
        fields.push("database");
    }
    if old.data_dir() != new.data_dir() {
        fields.push("data_dir");
    }
    if old.forecast != new.forecast {
        fields.push("forecast");
    }
    if old.telemetry != new.telemetry {
        fields.push("telemetry");
    }
    if old.signals != new.signals {
        fields.push("signals");
    }
    fields
}
