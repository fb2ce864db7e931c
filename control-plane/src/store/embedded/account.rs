use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{getegid, geteuid};

use super::error::EmbeddedError;

/// The user that the server runs as: Postgres refuses uid 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Login name, for messages.
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// True when we are root and must change to this user.
    pub(super) switch: bool,
}

impl Account {
    /// Returns the account for this process: oneself, or as root `postgres`, else `nobody`.
    pub(super) fn choose() -> Result<Self, EmbeddedError> {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        if uid != 0 {
            return Ok(Self { name: format!("uid {uid}"), uid, gid, switch: false });
        }
        let file = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(file).map_err(EmbeddedError::io("read", file))?;
        ["postgres", "nobody"].iter().find_map(|name| find(&passwd, name)).ok_or(EmbeddedError::NoAccount)
    }

    /// Makes `command` run as this account.
    pub(super) fn apply(&self, command: &mut Command) {
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
    }

    /// Gives `path` to this account. Does nothing when we are this account.
    pub(super) fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        if !self.switch {
            return Ok(());
        }
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .map_err(EmbeddedError::io("change the owner of", path))
    }

    /// Returns the topmost directory on the way to `path` that this account cannot pass, if there is one.
    /// `path` itself counts when it is a directory. It must be absolute and free of links.
    pub(super) fn barrier(&self, path: &Path) -> Option<PathBuf> {
        if !self.switch {
            return None;
        }
        let mut way: Vec<&Path> = path.ancestors().collect();
        way.reverse();
        way.into_iter()
            .find(|step| fs::metadata(step).is_ok_and(|meta| meta.is_dir() && !self.may_pass(&meta)))
            .map(Path::to_owned)
    }

    fn may_pass(&self, meta: &fs::Metadata) -> bool {
        let bit = if meta.uid() == self.uid {
            0o100
        } else if meta.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        meta.mode() & bit != 0
    }
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok().filter(|uid| *uid != 0)?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { name: name.to_owned(), uid, gid, switch: true })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn accounts_are_read_from_the_password_file() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\npostgres:x:101:104:,,,:/var:/bin/sh\n";
        let found = find(passwd, "postgres").unwrap();
        assert_eq!((found.uid, found.gid, found.switch), (101, 104, true));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(
            find("postgres:x:0:0:::\n", "postgres"),
            None,
            "a root account under another name is no help"
        );
    }

    #[test]
    fn a_closed_parent_is_a_barrier() {
        let dir = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(dir.path()).unwrap();
        let inner = top.join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        let other = Account { name: "other".into(), uid: u32::MAX - 7, gid: u32::MAX - 7, switch: true };
        assert_eq!(other.barrier(&inner), Some(top.join("a")));
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(other.barrier(&inner), None);
    }
}
