//! The store: telemetry, demand, forecasts, trained models and decisions, in Postgres.
//!
//! [`Store::open`] connects to the configured server or starts a private one ([`EmbeddedPostgres`]), and brings the
//! tables up to date. Its methods are grouped by subject, one file each. Telemetry takes its own way in, through
//! [`TelemetryWriter`]: a bounded queue, then one COPY per batch. Maintenance rolls it up into minutes and hours, of
//! backends, pools and models, from which [`Store::history`] draws charts of any length.
//!
//! Nothing here is needed to serve proxies: while the database is away every method returns an error, the writer
//! keeps samples in a spool on disk, and both recover by themselves.

mod acknowledgements;
mod backends;
mod connect;
mod copy;
mod decisions;
mod demand;
mod embedded;
mod error;
mod events;
mod forecasts;
mod health;
mod history;
mod maintenance;
mod model_state;
mod recording;
mod rollup;
mod samples;
mod settings;
mod spool;
mod totals;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

pub use self::acknowledgements::{AcknowledgementRow, Refusal};
pub use self::backends::{BackendRow, RegisteredBackend, RegisteredState};
pub use self::decisions::DecisionRow;
pub use self::demand::DemandRow;
pub use self::embedded::{EmbeddedError, EmbeddedPostgres, EmbeddedSettings, EmbeddedState};
pub use self::error::StoreError;
pub use self::events::{EventLevel, EventRow};
pub use self::forecasts::ForecastRow;
pub use self::health::StoreHealth;
pub use self::history::{History, HistoryPoint, Metric, Source, Subject};
pub use self::maintenance::MaintenanceReport;
pub use self::model_state::ModelState;
pub use self::recording::{CheckpointMark, CheckpointRow, PageRow, RunMark};
pub use self::rollup::MinuteRow;
pub use self::settings::{DatabaseSettings, Retention};
pub use self::writer::{SpoolSettings, TelemetryWriter, WriterCounters, WriterSettings};

/// How long a statement of a migration may take: an index over months of rows.
const MIGRATION: Duration = Duration::from_secs(3600);
const CONNECT: Duration = Duration::from_secs(10);

/// The database. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    options: PgConnectOptions,
    embedded: Option<Arc<EmbeddedPostgres>>,
}

impl Store {
    /// Connects to the configured database, or starts the embedded one, and migrates it.
    ///
    /// # Errors
    /// A wrong URL, a server that does not answer within the connect timeout, refuses us or is too old, an embedded
    /// server that does not start, a migration that fails.
    pub async fn open(settings: DatabaseSettings) -> Result<Self, StoreError> {
        let store = Self::reach(settings).await?;
        migrate(&store.options).await?;
        tracing::info!(database = connect::target(&store.options), "the database is ready");
        Ok(store)
    }

    /// Connects as [`Store::open`] does, also to the embedded server of a program that runs, and leaves the tables as they
    /// are: an older program may be using them.
    ///
    /// # Errors
    /// As [`Store::open`]; tables that are older than this program.
    pub async fn open_as_it_is(settings: DatabaseSettings) -> Result<Self, StoreError> {
        let embedded = settings.embedded.clone();
        let (timeout, connections) = (settings.connect_timeout, settings.max_connections);
        let store = match Self::reach(settings).await {
            Err(StoreError::Embedded(in_use @ EmbeddedError::InUse { .. })) => {
                let Some(options) = EmbeddedPostgres::of_another_process(&embedded) else {
                    return Err(in_use.into());
                };
                let options = connect::tuned(options);
                let pool = connect::connect(&options, timeout, connections).await?;
                Self { pool, options, embedded: None }
            }
            other => other?,
        };
        let is_there: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&store.pool)
            .await
            .map_err(StoreError::query("look for the tables"))?;
        let mut found: Vec<i64> = Vec::new();
        if is_there {
            found = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
                .fetch_all(&store.pool)
                .await
                .map_err(StoreError::query("ask for the version of the tables"))?;
        }
        let needed = migrations();
        match needed
            .iter()
            .map(|migration| migration.version)
            .filter(|version| !found.contains(version))
            .max()
        {
            None => Ok(store),
            Some(needed) => Err(StoreError::OlderTables {
                target: connect::target(&store.options),
                found: found.last().copied().unwrap_or_default(),
                needed,
            }),
        }
    }

    async fn reach(settings: DatabaseSettings) -> Result<Self, StoreError> {
        let (options, embedded) = match &settings.url {
            Some(url) => (connect::parse_url(url)?, None),
            None => {
                let wanted = settings.embedded.clone();
                let embedded = spawn_blocking(move || EmbeddedPostgres::start(wanted)).await??;
                (embedded.connect_options(), Some(Arc::new(embedded)))
            }
        };
        let options = connect::tuned(options);
        let pool = connect::connect(&options, settings.connect_timeout, settings.max_connections).await?;
        Ok(Self { pool, options, embedded })
    }

    /// Closes the connections, and stops the embedded server if this is the last clone.
    ///
    /// # Errors
    /// When the thread that stops the server fails.
    pub async fn close(self) -> Result<(), StoreError> {
        self.pool.close().await;
        // Dropping stops the server, which blocks.
        Ok(spawn_blocking(move || drop(self)).await?)
    }

    /// Returns the connections, for queries that no method covers.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns what the embedded server is doing; `None` when another server is used.
    #[must_use]
    pub fn embedded_state(&self) -> Option<EmbeddedState> {
        self.embedded.as_ref().map(|embedded| embedded.state())
    }

    fn connect_options(&self) -> &PgConnectOptions {
        &self.options
    }
}

/// Brings the tables up to date, with more time than other statements have.
async fn migrate(options: &PgConnectOptions) -> Result<(), StoreError> {
    let patient = options.clone().options([("statement_timeout", format!("{}s", MIGRATION.as_secs()))]);
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT).connect_lazy_with(patient);
    match timeout(MIGRATION, migrations().run(&pool)).await {
        Ok(migrated) => migrated?,
        Err(_) => {
            let source = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
            return Err(StoreError::Query { action: "migrate the database in time", source });
        }
    }
    pool.close().await;
    Ok(())
}

/// Returns the migrations of this build. A database that has newer ones too is fine: each migration leaves the
/// program before it working.
fn migrations() -> Migrator {
    let mut migrations = sqlx::migrate!("../migrations");
    migrations.set_ignore_missing(true);
    migrations
}
