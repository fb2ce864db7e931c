//! Finds what would be left of the children and theirs, so that the demo can say that nothing is.

use std::{collections::HashSet, fs};

/// A process, told apart from a later one with the same number by the time of its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) name: String,
    parent: u32,
    /// Clock ticks since the machine started.
    start: u64,
}

/// The processes `roots`, their children, and theirs. Empty where there is no `/proc`.
pub(super) fn descendants_of(roots: &[u32]) -> Vec<Process> {
    let all = all_processes();
    let mut family: HashSet<u32> = roots.iter().copied().collect();
    loop {
        let before = family.len();
        family.extend(
            all.iter().filter(|process| family.contains(&process.parent)).map(|p| p.pid).collect::<Vec<_>>(),
        );
        if family.len() == before {
            break;
        }
    }
    all.into_iter().filter(|process| family.contains(&process.pid)).collect()
}

/// Those of `processes` that have not ended.
pub(super) fn still_running(processes: &[Process]) -> Vec<Process> {
    processes
        .iter()
        .filter(|process| read(process.pid).is_some_and(|now| now.start == process.start))
        .cloned()
        .collect()
}

fn all_processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(read).collect()
}

fn read(pid: u32) -> Option<Process> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/PID/stat`; nothing for a process that has ended and waits for its parent.
fn parse(pid: u32, stat: &str) -> Option<Process> {
    // The name stands in brackets and may hold anything, brackets too.
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    let parent = fields.get(1)?.parse().ok()?;
    // Field 22 of the whole line; the state is field 3.
    let start = fields.get(19)?.parse().ok()?;
    Some(Process { pid, name: name.to_owned(), parent, start })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_is_read() {
        let stat = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 99 1";
        let process = parse(7, stat).unwrap();
        assert_eq!((process.name.as_str(), process.parent, process.start), ("a) b", 3, 4242));
        assert_eq!(parse(7, &stat.replace(" S ", " Z ")), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found() {
        let me = descendants_of(&[std::process::id()]);
        assert!(me.iter().any(|process| process.pid == std::process::id()));
        assert_eq!(still_running(&me[..1]).len(), 1);
    }
}
