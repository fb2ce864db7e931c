use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Lines kept for error messages.
const KEPT_LINES: usize = 30;
/// How long the last words of a dead server may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Reads the server's log, passes it on to ours and keeps the end of it. Nothing is stored on disk.
#[derive(Debug)]
pub(super) struct LogTail {
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: JoinHandle<()>,
}

impl LogTail {
    pub(super) fn follow(log: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(log).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).into_owned();
                report(&line);
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                if kept.len() == KEPT_LINES {
                    kept.pop_front();
                }
                kept.push_back(line);
            }
        });
        Self { lines, reader }
    }

    /// Returns the end of the log. The children of a killed server may hold the pipe open, so the wait for the end
    /// of the stream is short.
    pub(super) fn end(&self) -> String {
        let deadline = Instant::now() + LAST_WORDS;
        while !self.reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_empty() {
            return "(empty)".to_owned();
        }
        lines.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn report(line: &str) {
    let grave = ["FATAL:", "PANIC:", "WARNING:"].iter().any(|level| line.contains(level));
    if grave {
        tracing::warn!(line, "Postgres says");
    } else {
        tracing::debug!(line, "Postgres says");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let end = LogTail::follow(std::io::Cursor::new(text)).end();
        assert_eq!(end.lines().count(), KEPT_LINES);
        assert!(end.ends_with("line 99"), "{end}");
    }
}
