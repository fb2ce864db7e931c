//! Stamps: a short file that says what a folder was made from, so that a second run has nothing to do.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// A hash of contents (FNV-1a, 64 bits). It guards against forgetting, not against an attacker: what is
/// fetched is checked by pip against the SHA-256 pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(u64);

impl Stamp {
    /// Starts with the machine's architecture, as what is fetched or built differs by it.
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325).with(std::env::consts::ARCH.as_bytes())
    }

    /// Adds a value. Its length goes in too, so that two values cannot run into each other.
    #[must_use]
    pub(crate) fn with(self, value: &[u8]) -> Self {
        let length = (value.len() as u64).to_le_bytes();
        let mut hash = self.0;
        for byte in length.iter().chain(value) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self(hash)
    }

    /// Adds files, each with its name relative to `base`, in the order given.
    pub(crate) fn with_files(self, base: &Path, files: &[impl AsRef<Path>]) -> Result<Self> {
        files.iter().try_fold(self, |stamp, file| {
            let file = file.as_ref();
            let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let name = file.strip_prefix(base).unwrap_or(file);
            Ok(stamp.with(name.as_os_str().as_encoded_bytes()).with(&content))
        })
    }

    /// Returns the stamp as it is written to a file.
    pub(crate) fn text(self) -> String {
        format!("{:016x}\n", self.0)
    }

    /// Tells whether the file holds this stamp. A missing file does not.
    pub(crate) fn matches(self, file: &Path) -> bool {
        fs::read_to_string(file).is_ok_and(|text| text == self.text())
    }

    /// Writes the stamp.
    pub(crate) fn write(self, file: &Path) -> Result<()> {
        fs::write(file, self.text()).with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    #[test]
    fn values_do_not_run_into_each_other() {
        assert_ne!(Stamp::new().with(b"ab").with(b"c"), Stamp::new().with(b"a").with(b"bc"));
        assert_eq!(Stamp::new().with(b"ab"), Stamp::new().with(b"ab"));
    }

    #[test]
    fn a_changed_file_changes_the_stamp() {
        let folder = env::temp_dir().join(format!("xtask-stamp-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (source, mark) = (folder.join("source"), folder.join("stamp"));

        fs::write(&source, "one").unwrap();
        let first = Stamp::new().with_files(&folder, &[&source]).unwrap();
        assert!(!first.matches(&mark), "no stamp yet");
        first.write(&mark).unwrap();
        assert!(first.matches(&mark));

        fs::write(&source, "two").unwrap();
        let second = Stamp::new().with_files(&folder, &[&source]).unwrap();
        assert!(!second.matches(&mark));
        fs::remove_dir_all(&folder).unwrap();
    }
}
