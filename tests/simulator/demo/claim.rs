//! The claim of one demo on its state folder.

use std::{fs::File, io, path::Path};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

/// Takes the folder for as long as the returned file is open; the system lets go of it when the process ends.
///
/// # Errors
///
/// When another demo has it, or the file of the lock cannot be made.
pub(super) fn claim(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("demo.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(io::Error::from) {
        Ok(()) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => anyhow::bail!(
            "another demo runs in {}: end it, or name another folder with --state-dir",
            folder.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_demo_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = claim(folder.path()).unwrap();
        let error = claim(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another demo runs") && error.contains("--state-dir"), "{error}");
        drop(first);
        claim(folder.path()).unwrap();
    }
}
