use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

/// What Postgres says about itself in `postmaster.pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: u32,
    /// Where its socket is: line 5 of the file.
    pub(super) socket_dir: Option<PathBuf>,
    /// True when it takes connections: line 8 of the file.
    pub(super) ready: bool,
}

impl Postmaster {
    /// Reads the file of the cluster in `data`; `None` when it is missing or half-written.
    pub(super) fn read(data: &Path) -> Option<Self> {
        parse(&fs::read_to_string(file(data)).ok()?)
    }
}

/// Returns the path of the lock file of the cluster in `data`.
pub(super) fn file(data: &Path) -> PathBuf {
    data.join("postmaster.pid")
}

fn parse(text: &str) -> Option<Postmaster> {
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let socket_dir = lines.nth(3).map(str::trim).filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let ready = lines.nth(2).is_some_and(|status| status.trim() == "ready");
    Some(Postmaster { pid, socket_dir, ready })
}

/// Returns whether a process with this id exists.
pub(super) fn is_alive(pid: u32) -> bool {
    to_pid(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Returns the id as the system calls take it.
pub(super) fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Returns the processes that work in `data`: every process of a server does, so this finds the children that a
/// killed postmaster left behind. Empty where there is no `/proc`.
pub(super) fn processes_in(data: &Path) -> Vec<u32> {
    let (Ok(entries), Ok(data)) = (fs::read_dir("/proc"), fs::canonicalize(data)) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let directory = fs::read_link(entry.path().join("cwd")).ok()?;
            (directory == data).then_some(pid)
        })
        .collect()
}

/// Returns whether `/proc` shows what processes work in.
pub(super) fn can_see_processes() -> bool {
    fs::read_link("/proc/self/cwd").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_line_eight() {
        let text = "4242\n/data\n1700000000\n5432\n/run\n\n  1234 5678\nready   \n";
        let found = parse(text).unwrap();
        assert_eq!((found.pid, found.ready), (4242, true));
        assert_eq!(found.socket_dir.as_deref(), Some(Path::new("/run")));
        assert!(!parse(&text.replace("ready   ", "starting")).unwrap().ready);
        assert_eq!(parse("4242\n/data\n"), Some(Postmaster { pid: 4242, socket_dir: None, ready: false }));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn processes_are_found_by_where_they_work() {
        let here = fs::canonicalize(std::env::current_dir().unwrap()).unwrap();
        assert!(processes_in(&here).contains(&std::process::id()));
        assert!(is_alive(std::process::id()));
        assert!(!is_alive(0));
    }
}
