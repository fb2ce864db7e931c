//! What the demo tells while it runs: one short line per thing that happens, timed from the first request.

use std::{
    fmt::Display,
    io::{IsTerminal as _, Write as _, stdout},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

/// Writes to standard output. Clones write to the same place.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    begin: Option<Instant>,
    terminal: bool,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Inner { begin: None, terminal: stdout().is_terminal() })))
    }

    /// Sets the moment from which lines are timed.
    pub(super) fn begin(&self, at: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begin = Some(at);
    }

    /// Writes one line with the time.
    pub(super) fn line(&self, text: impl Display) {
        self.write(|inner| {
            let time = match inner.begin {
                Some(begin) => format!("{:+.0} s", begin.elapsed().as_secs_f64().floor()),
                None => "start".to_owned(),
            };
            format!("{}{time:>7}  {text}\n", inner.clear())
        });
    }

    /// Writes text as it is.
    pub(super) fn plain(&self, text: impl Display) {
        self.write(|inner| format!("{}{text}\n", inner.clear()));
    }

    /// Shows a line that the next one replaces; only where someone looks at a terminal.
    pub(super) fn live(&self, text: impl Display) {
        self.write(|inner| if inner.terminal { format!("{}{text}", inner.clear()) } else { String::new() });
    }

    fn write(&self, text: impl FnOnce(&Inner) -> String) {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut out = stdout().lock();
        // A closed output must not end the demo before its children are stopped.
        let _ = out.write_all(text(&inner).as_bytes());
        let _ = out.flush();
    }
}

impl Inner {
    /// Back to the start of the line, and empties it.
    fn clear(&self) -> &'static str {
        if self.terminal { "\r\x1b[K" } else { "" }
    }
}
