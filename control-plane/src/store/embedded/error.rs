use std::io;
use std::path::{Path, PathBuf};

/// Why the embedded Postgres did not start. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddedError {
    /// No directory with `postgres` and `initdb` was found.
    #[error(
        "no Postgres server found in {}; run `cargo xtask setup`, install a Postgres server package, set \
         database.postgres_bin, or set database.url to a server of your own", list(.looked)
    )]
    BinariesNotFound {
        /// Every place that was tried, in order.
        looked: Vec<PathBuf>,
    },
    /// The binaries do not run on this machine.
    #[error("cannot run {}: {reason}; set database.postgres_bin to a Postgres built for this machine", .path.display())]
    BinariesBroken {
        /// The binary that was tried.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Started as root, and the machine has no user that the server can run as.
    #[error(
        "Postgres refuses to run as root, and /etc/passwd has neither a user `postgres` nor `nobody`; add one \
         (`useradd --system postgres`), or start Clairvoy as another user"
    )]
    NoAccount,
    /// The user that the server runs as cannot get to a directory.
    #[error(
        "the user {user}, which Postgres runs as, cannot reach {}: {} lets it not through; set data_dir to a place \
         such as /var/lib/clairvoy, or open the directory with `chmod o+x`", .path.display(), .barrier.display()
    )]
    Unreachable {
        /// The path that is needed.
        path: PathBuf,
        /// The parent directory that is closed.
        barrier: PathBuf,
        /// The user's name.
        user: String,
    },
    /// Another live process uses the data directory.
    #[error("the data directory {} is in use by process {pid}; stop that process, or set another data_dir", .data_dir.display())]
    InUse {
        /// The directory in question.
        data_dir: PathBuf,
        /// Who holds it.
        pid: u32,
    },
    /// The data was made by another major version of Postgres.
    #[error(
        "the data in {} was made by Postgres {made_by}, but the server found is version {found}; set \
         database.postgres_bin to a Postgres {made_by}, or move the directory away to start empty", .data_dir.display()
    )]
    VersionMismatch {
        /// The directory in question.
        data_dir: PathBuf,
        /// Major version that made the data.
        made_by: u32,
        /// Major version of the binaries.
        found: u32,
    },
    /// The directory for the socket belongs to somebody else.
    #[error("the socket directory {} is not a private directory of user {uid}; remove it, or set TMPDIR", .path.display())]
    SocketDirectoryTaken {
        /// The directory in question.
        path: PathBuf,
        /// The user that must own it.
        uid: u32,
    },
    /// No directory short enough for a socket.
    #[error("the socket path {} is longer than {max} bytes; set data_dir or TMPDIR to a shorter path", .path.display())]
    SocketPathTooLong {
        /// The shortest path that was tried.
        path: PathBuf,
        /// The limit.
        max: usize,
    },
    /// A file or directory could not be read or made.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed ({status}): {log}")]
    Initdb {
        /// Its exit status.
        status: String,
        /// The end of its output.
        log: String,
    },
    /// The server ended before it was ready.
    #[error("Postgres ended before it was ready ({status}); the end of its log: {log}")]
    Exited {
        /// Its exit status.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// The server lives but does not become ready.
    #[error("Postgres was not ready after {seconds} s; the end of its log: {log}")]
    NotReady {
        /// How long it was given.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// The server says that it is ready but does not answer.
    #[error("Postgres is up but refuses the first connection: {0}")]
    Connect(#[source] sqlx::Error),
    /// Stopped while it was starting.
    #[error("stopped while Postgres was starting")]
    Stopped,
}

impl EmbeddedError {
    /// Returns the mapping of an I/O error on `path` while doing `action`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
