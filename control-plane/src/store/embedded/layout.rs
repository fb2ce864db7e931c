use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::account::Account;
use super::error::EmbeddedError;
use super::postmaster::{self, Postmaster};

/// The name of the socket in its directory; the port is only part of the name.
const SOCKET: &str = ".s.PGSQL.5432";
/// `sockaddr_un` holds 108 bytes with the final zero.
const MAX_SOCKET_PATH: usize = 107;
/// How long the processes of a server that was killed may take to go.
const SETTLE: Duration = Duration::from_secs(15);

/// The directories of one embedded server, and the claim on them.
#[derive(Debug)]
pub(super) struct Layout {
    /// Holds everything else; owned by the server's account, closed to others.
    pub(super) root: PathBuf,
    pub(super) data: PathBuf,
    pub(super) socket_dir: PathBuf,
    socket_is_temporary: bool,
    _claim: File,
}

impl Layout {
    /// Makes the directories under `data_dir` and claims them for this process.
    pub(super) fn prepare(data_dir: &Path, account: &Account) -> Result<Self, EmbeddedError> {
        let wanted =
            std::path::absolute(data_dir).map_err(EmbeddedError::io("find", data_dir))?.join("postgres");
        fs::create_dir_all(&wanted).map_err(EmbeddedError::io("create", &wanted))?;
        let root = fs::canonicalize(&wanted).map_err(EmbeddedError::io("open", &wanted))?;
        if let Some(barrier) = root.parent().and_then(|parent| account.barrier(parent)) {
            return Err(EmbeddedError::Unreachable { path: root, barrier, user: account.name.clone() });
        }
        let claim = claim(&root)?;
        make_private(&root, account)?;
        let (socket_dir, socket_is_temporary) = socket_directory(&root, &std::env::temp_dir(), account)?;
        Ok(Self { data: root.join("data"), root, socket_dir, socket_is_temporary, _claim: claim })
    }

    /// Returns the major version that made the data, if there is data.
    pub(super) fn data_version(&self) -> Option<u32> {
        fs::read_to_string(self.data.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// Waits until no process of an earlier server works in the data directory, and removes a lock file whose
    /// process id now belongs to an unrelated process, as happens when a container starts again.
    pub(super) fn settle(&self) -> Result<(), EmbeddedError> {
        let deadline = Instant::now() + SETTLE;
        while let Some(&pid) = postmaster::processes_in(&self.data).first() {
            if Instant::now() >= deadline {
                let pid = Postmaster::read(&self.data).map_or(pid, |postmaster| postmaster.pid);
                return Err(EmbeddedError::InUse { data_dir: self.data.clone(), pid });
            }
            thread::sleep(Duration::from_millis(20));
        }
        let Some(postmaster) = Postmaster::read(&self.data) else {
            return Ok(());
        };
        if postmaster::is_alive(postmaster.pid) && postmaster::can_see_processes() {
            let file = postmaster::file(&self.data);
            tracing::warn!(
                process.id = postmaster.pid,
                "removing the stale lock of Postgres: its process ended, or is another program now"
            );
            fs::remove_file(&file).map_err(EmbeddedError::io("remove", &file))?;
        }
        Ok(())
    }

    /// Removes what should not outlive the server.
    pub(super) fn clean_up(&self) {
        if self.socket_is_temporary
            && let Err(error) = fs::remove_dir(&self.socket_dir)
        {
            tracing::debug!(path = %self.socket_dir.display(), %error, "cannot remove the socket directory");
        }
    }
}

/// Takes the lock of the directory, which the kernel frees when this process ends, however it ends.
fn claim(root: &Path) -> Result<File, EmbeddedError> {
    let path = root.join("lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(EmbeddedError::io("open", &path))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(EmbeddedError::io("read", &path))?;
        return Err(EmbeddedError::InUse {
            data_dir: root.to_owned(),
            pid: text.trim().parse().unwrap_or(0),
        });
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(EmbeddedError::io("write", &path))?;
    Ok(file)
}

fn make_private(path: &Path, account: &Account) -> Result<(), EmbeddedError> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        .map_err(EmbeddedError::io("protect", path))?;
    account.own(path)
}

/// Returns a private directory whose path is short enough for a socket, and whether it is a temporary one.
fn socket_directory(
    root: &Path,
    temporary: &Path,
    account: &Account,
) -> Result<(PathBuf, bool), EmbeddedError> {
    let inside = root.join("run");
    if fits(&inside) {
        fs::create_dir_all(&inside).map_err(EmbeddedError::io("create", &inside))?;
        make_private(&inside, account)?;
        return Ok((inside, false));
    }
    // The same name each time, so that a killed process leaves no trail of directories.
    let name: String = Sha256::digest(root.as_os_str().as_bytes())
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let path = temporary.join(format!("clairvoy-{name}"));
    if !fits(&path) {
        return Err(EmbeddedError::SocketPathTooLong { path: path.join(SOCKET), max: MAX_SOCKET_PATH });
    }
    if let Some(barrier) = account.barrier(temporary) {
        return Err(EmbeddedError::Unreachable { path, barrier, user: account.name.clone() });
    }
    if DirBuilder::new().mode(0o700).create(&path).is_ok() {
        account.own(&path)?;
    }
    // Anybody may have made it before us, so look before use; a link is not followed.
    let meta = fs::symlink_metadata(&path).map_err(EmbeddedError::io("create", &path))?;
    if !meta.is_dir() || meta.uid() != account.uid || meta.mode() & 0o077 != 0 {
        return Err(EmbeddedError::SocketDirectoryTaken { path, uid: account.uid });
    }
    Ok((path, true))
}

fn fits(socket_dir: &Path) -> bool {
    socket_dir.join(SOCKET).as_os_str().len() <= MAX_SOCKET_PATH
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oneself() -> Account {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Account { name: "self".into(), uid, gid, switch: false }
    }

    #[test]
    fn a_long_path_moves_the_socket_to_the_temporary_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("x".repeat(120));
        let (path, temporary) = socket_directory(&root, dir.path(), &oneself()).unwrap();
        assert!(temporary && path.starts_with(dir.path()) && fits(&path), "{}", path.display());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let (again, _) = socket_directory(&root, dir.path(), &oneself()).unwrap();
        assert_eq!(again, path, "the same data always finds the same directory");
    }

    #[test]
    fn an_open_socket_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("x".repeat(120));
        let (path, _) = socket_directory(&root, dir.path(), &oneself()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = socket_directory(&root, dir.path(), &oneself());
        assert!(matches!(refused, Err(EmbeddedError::SocketDirectoryTaken { .. })), "{refused:?}");
    }

    #[test]
    fn a_claimed_directory_names_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let _held = Layout::prepare(dir.path(), &oneself()).unwrap();
        let error = Layout::prepare(dir.path(), &oneself()).unwrap_err();
        assert!(matches!(error, EmbeddedError::InUse { pid, .. } if pid == std::process::id()), "{error}");
    }
}
