use sqlx::migrate::MigrateError;

use super::embedded::EmbeddedError;

/// What went wrong with the database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The embedded server did not start.
    #[error("cannot start the embedded Postgres: {0}")]
    Embedded(#[from] EmbeddedError),
    /// The configured URL is not one.
    #[error(
        "database.url is not a Postgres URL ({0}); it looks like postgres://user:password@host:5432/database"
    )]
    InvalidUrl(#[source] sqlx::Error),
    /// Nothing answered in time.
    #[error(
        "no database at {target} after {seconds:.0} s ({source}); check that it runs and that database.url names it, \
         or leave the URL out to use the embedded Postgres"
    )]
    Unreachable {
        /// Host, port and database, without user and password.
        target: String,
        /// How long it was tried.
        seconds: f64,
        /// The last failure.
        source: sqlx::Error,
    },
    /// The server answers but does not let us in.
    #[error("the database at {target} refuses the connection: {source}")]
    Refused {
        /// Host, port and database, without user and password.
        target: String,
        /// Its answer.
        source: sqlx::Error,
    },
    /// The server is too old.
    #[error("the database is Postgres {version}; Clairvoy needs version {needed} or newer")]
    TooOld {
        /// What it calls itself.
        version: String,
        /// The oldest major version that will do.
        needed: u32,
    },
    /// The tables could not be brought up to date.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[from] MigrateError),
    /// The tables are not migrated, and were not to be.
    #[error(
        "the tables at {target} are older than this program (version {found}, and it needs {needed}): use the clairvoy that \
         writes them, or let `clairvoy serve` of this version bring them up to date"
    )]
    OlderTables {
        /// Host, port and database, without user and password.
        target: String,
        /// The newest version that is there; 0 when there are no tables.
        found: i64,
        /// The newest version that is not there.
        needed: i64,
    },
    /// A query failed.
    #[error("cannot {action}: {source}")]
    Query {
        /// What it was for.
        action: &'static str,
        /// Why it failed.
        source: sqlx::Error,
    },
    /// The thread of the embedded server failed.
    #[error("a task of the store failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl StoreError {
    /// Returns the mapping of a failed query that was to do `action`.
    pub(super) fn query(action: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { action, source }
    }

    /// Whether the database refuses the values themselves, so that trying again is of no use.
    pub fn is_refusal(&self) -> bool {
        let Self::Query { source, .. } = self else { return false };
        source
            .as_database_error()
            .and_then(|error| error.code())
            .is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }
}
