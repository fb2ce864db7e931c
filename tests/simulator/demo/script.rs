//! The minute worth watching.

/// Seconds from the first request until one server becomes slow: before, it could not be told from one that is slow by nature.
const SLOW_AT_SECONDS: f64 = 30.0;

/// Seconds from the first request until it is well again.
const RECOVER_AT_SECONDS: f64 = 54.0;

/// How much slower it becomes.
pub(super) const SLOW_FACTOR: f64 = 4.0;

/// Something that the script does to the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// One server becomes slow.
    Slow,
    /// It is well again.
    Recover,
}

/// What is to happen when, each once.
#[derive(Debug)]
pub(super) struct Script {
    ahead: Vec<(f64, Action)>,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { ahead: vec![(RECOVER_AT_SECONDS, Action::Recover), (SLOW_AT_SECONDS, Action::Slow)] }
    }

    /// The next action that is due `at_seconds` after the first request.
    pub(super) fn due(&mut self, at_seconds: f64) -> Option<Action> {
        let (time, action) = *self.ahead.last()?;
        if time > at_seconds {
            return None;
        }
        self.ahead.pop();
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_comes_once_and_in_order() {
        let mut script = Script::new();
        assert_eq!(script.due(29.9), None);
        let late: Vec<_> = std::iter::from_fn(|| script.due(70.0)).collect();
        assert_eq!(late, [Action::Slow, Action::Recover]);
    }
}
