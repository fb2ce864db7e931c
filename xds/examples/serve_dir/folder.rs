//! Reads a folder of encoded resources.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clairvoy_xds::{ResourceType, Snapshot, SnapshotBuilder};
use prost::{DecodeError, Message};

/// Replaced when a set of files is complete.
const COMMIT: &str = ".commit";

/// Tells one `.commit` from the next, whether it was renamed into place or written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: (u64, u64),
    modified: (i64, i64),
    changed: (i64, i64),
    size: u64,
}

/// The present `.commit`, if there is one.
pub(crate) fn stamp(folder: &Path) -> Option<Stamp> {
    let commit = fs::metadata(folder.join(COMMIT)).ok()?;
    Some(Stamp {
        inode: (commit.dev(), commit.ino()),
        modified: (commit.mtime(), commit.mtime_nsec()),
        changed: (commit.ctime(), commit.ctime_nsec()),
        size: commit.size(),
    })
}

/// True if there is a file of a resource.
pub(crate) fn has_resources(folder: &Path) -> bool {
    ResourceType::ALL.into_iter().any(|of_type| files(folder, of_type).is_ok_and(|files| !files.is_empty()))
}

/// Reads every resource.
///
/// # Errors
///
/// Everything that is wrong, in files and in the set as a whole, as lines of text.
pub(crate) fn load(folder: &Path) -> Result<Snapshot, Vec<String>> {
    let mut builder = SnapshotBuilder::new();
    let mut faults = Vec::new();
    for resource_type in ResourceType::ALL {
        let files = match files(folder, resource_type) {
            Ok(files) => files,
            Err(error) => {
                faults.push(format!("{}: {error}", folder.join(subfolder(resource_type)).display()));
                continue;
            }
        };
        for path in files {
            if let Err(reason) = add(&mut builder, resource_type, &path) {
                faults.push(format!("{}: {reason}", path.display()));
            }
        }
    }
    match builder.build() {
        Ok(snapshot) if faults.is_empty() => Ok(snapshot),
        Ok(_) => Err(faults),
        Err(invalid) => {
            faults.extend(invalid.faults.iter().map(ToString::to_string));
            Err(faults)
        }
    }
}

fn subfolder(resource_type: ResourceType) -> String {
    resource_type.service().to_lowercase()
}

/// The files of a type, by name. None where the folder of the type is missing.
fn files(folder: &Path, resource_type: ResourceType) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder.join(subfolder(resource_type))) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pb") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn add(builder: &mut SnapshotBuilder, resource_type: ResourceType, path: &Path) -> Result<(), String> {
    fn decoded<M: Message + Default>(bytes: &[u8], resource_type: ResourceType) -> Result<M, String> {
        M::decode(bytes).map_err(|error: DecodeError| format!("not a {}: {error}", message(resource_type)))
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    match resource_type {
        ResourceType::Runtime => builder.runtime(decoded(&bytes, resource_type)?),
        ResourceType::Secret => builder.secret(decoded(&bytes, resource_type)?),
        ResourceType::Cluster => builder.cluster(decoded(&bytes, resource_type)?),
        ResourceType::ClusterLoadAssignment => builder.assignment(decoded(&bytes, resource_type)?),
        ResourceType::Listener => builder.listener(decoded(&bytes, resource_type)?),
        ResourceType::RouteConfiguration => builder.route_configuration(decoded(&bytes, resource_type)?),
    };
    Ok(())
}

/// The name of the message, without its package.
fn message(resource_type: ResourceType) -> &'static str {
    let type_url = resource_type.type_url();
    type_url.rsplit('.').next().unwrap_or(type_url)
}
