//! A private Postgres server, run and watched over by this process.
//!
//! It listens on a socket in a directory that only its own user can enter, on no port. It runs with Postgres's durable
//! settings. As root it runs as the user `postgres` or `nobody`, since Postgres refuses to be root.
//!
//! ```text
//! data_dir/postgres/        owned by the server's user, mode 0700
//!   lock                    held while a Clairvoy uses the directory, with its process id
//!   data/                   the cluster
//!   run/                    the socket, unless the path is too long for one
//!   binaries/               a copy of the server, only if the user could not reach the original
//! ```
//!
//! One thread starts the server, watches it and starts it again when it dies. The kernel stops the server (SIGINT)
//! when that thread ends, so a killed Clairvoy leaves none behind.

mod account;
mod binaries;
mod death_signal;
mod error;
mod layout;
mod log_tail;
mod postmaster;
mod server;
mod supervisor;

use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

pub use self::error::EmbeddedError;

use self::account::Account;
use self::binaries::Binaries;
use self::layout::Layout;
use self::postmaster::Postmaster;
use self::server::Plan;
use self::supervisor::{Stop, supervise};

/// Where the embedded server keeps its data and finds its binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// Clairvoy's state directory; the server uses the folder `postgres` in it. Made if missing.
    pub data_dir: PathBuf,
    /// The folder with `postgres` and `initdb`. Left out, these are tried: `.tools/postgres` in the current directory
    /// and above the executable, then `/usr/lib/postgresql`, newest version first.
    pub postgres_bin: Option<PathBuf>,
}

/// What the embedded server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EmbeddedState {
    /// It is being started for the first time.
    Starting,
    /// It takes connections.
    Running {
        /// Its process id.
        pid: u32,
    },
    /// It died and is being started again.
    Restarting {
        /// How it died, or why the last attempt failed.
        reason: String,
    },
    /// It was stopped, for good.
    Stopped,
}

/// A running embedded server. It stops when this is dropped.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    options: PgConnectOptions,
    state: watch::Receiver<EmbeddedState>,
    orders: mpsc::Sender<Stop>,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedPostgres {
    /// Starts the server and returns when it has answered a query. Makes the cluster and the database `clairvoy`
    /// first if they are missing.
    ///
    /// Blocks for a second or two: call it through `spawn_blocking`.
    ///
    /// # Errors
    /// No server found, directories out of reach, data in use or of another version, or a server that does not start.
    pub fn start(settings: EmbeddedSettings) -> Result<Self, EmbeddedError> {
        let account = Account::choose()?;
        let layout = Layout::prepare(&settings.data_dir, &account)?;
        let binaries = Binaries::find(settings.postgres_bin.as_deref(), layout.data_version())?
            .within_reach(&account, &layout.root)?;
        let plan = Plan { binaries, account, layout };
        plan.initialise()?;
        let options = plan.connect_options();
        let (orders, received) = mpsc::channel();
        let (publish, state) = watch::channel(EmbeddedState::Starting);
        let (started, start) = mpsc::sync_channel(1);
        let supervisor = thread::Builder::new()
            .name("postgres".to_owned())
            .spawn(move || supervise(&plan, &received, &publish, &started))
            .map_err(EmbeddedError::io("start a thread for", &settings.data_dir))?;
        start.recv().unwrap_or(Err(EmbeddedError::Stopped))?;
        Ok(Self { options, state, orders, supervisor: Mutex::new(Some(supervisor)) })
    }

    /// Returns how to connect to the server that another process has started on these data, if one takes connections.
    #[must_use]
    pub fn of_another_process(settings: &EmbeddedSettings) -> Option<PgConnectOptions> {
        let running = Postmaster::read(&settings.data_dir.join("postgres/data"))?;
        let socket_dir = running.socket_dir.filter(|_| running.ready)?;
        Some(server::connect_options(&socket_dir))
    }

    /// Returns how to connect to the database.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        self.options.clone()
    }

    /// Returns what the server is doing now.
    #[must_use]
    pub fn state(&self) -> EmbeddedState {
        self.state.borrow().clone()
    }

    /// Stops the server and waits until it has ended; open sessions are cut. Does nothing the second time.
    ///
    /// Blocks, usually for a fraction of a second: call it through `spawn_blocking`.
    pub fn stop(&self) {
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(supervisor) = supervisor {
            // An error means that the thread has ended already.
            let _ = self.orders.send(Stop);
            if supervisor.join().is_err() {
                tracing::error!("the thread that runs Postgres panicked");
            }
        }
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        self.stop();
    }
}
