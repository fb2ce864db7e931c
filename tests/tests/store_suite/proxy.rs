//! A proxy before the database, to lose what a network loses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;

/// How a session commits, on the wire: a simple query.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

/// A proxy on a loopback port.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    faults: Arc<Faults>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Faults {
    /// Connections are closed at once.
    away: AtomicBool,
    /// So many commits reach the server, but their answers do not come back.
    lose_commits: AtomicUsize,
}

impl Proxy {
    pub(crate) async fn start(socket_dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let socket = socket_dir.join(".s.PGSQL.5432");
        let task = tokio::spawn(accept(listener, socket, Arc::clone(&faults)));
        Self { port, faults, task }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.faults.away.store(away, Ordering::SeqCst);
    }

    pub(crate) fn lose_answers_to_commits(&self, count: usize) {
        self.faults.lose_commits.store(count, Ordering::SeqCst);
    }

    pub(crate) fn commits_left_to_lose(&self) -> usize {
        self.faults.lose_commits.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, faults: Arc<Faults>) {
    let mut sessions = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if !faults.away.load(Ordering::SeqCst) {
            sessions.spawn(forward(client, socket.clone(), Arc::clone(&faults)));
        }
    }
}

async fn forward(mut client: TcpStream, socket: PathBuf, faults: Arc<Faults>) -> Option<()> {
    let mut server = UnixStream::connect(socket).await.ok()?;
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            count = client.read(&mut asked) => {
                let asked = &asked[..count.ok().filter(|count| *count > 0)?];
                if faults.away.load(Ordering::SeqCst) {
                    return None;
                }
                server.write_all(asked).await.ok()?;
                let lose = |left: usize| left.checked_sub(1);
                if asked.ends_with(COMMIT)
                    && faults.lose_commits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, lose).is_ok()
                {
                    // Wait for the answer, so that it is certain that the commit happened.
                    let answer = server.read(&mut answered).await.ok()?;
                    return (answer == 0).then_some(());
                }
            }
            count = server.read(&mut answered) => {
                client.write_all(&answered[..count.ok().filter(|count| *count > 0)?]).await.ok()?;
            }
        }
    }
}
