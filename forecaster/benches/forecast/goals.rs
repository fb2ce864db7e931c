//! What was aimed at, and whether it was reached.

use std::fmt;

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// This or less.
    AtMost(f64),
    /// This or more.
    AtLeast(f64),
    /// From the first to the second.
    Within(f64, f64),
    /// Less than this.
    Below(f64),
}

impl Goal {
    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::AtMost(most) => measured <= most,
            Self::AtLeast(least) => measured >= least,
            Self::Within(least, most) => (least..=most).contains(&measured),
            Self::Below(limit) => measured < limit,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::Within(least, most) => write!(f, "{least}–{most}"),
            Self::Below(limit) => write!(f, "< {limit:.4}"),
        }
    }
}

/// All goals that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Goals {
    met: usize,
    missed: Vec<String>,
}

impl Goals {
    /// Notes a figure, unrounded, and returns whether it is what it should be, in a word.
    pub(crate) fn check(&mut self, what: &str, goal: Goal, measured: f64) -> &'static str {
        if goal.is_met(measured) {
            self.met += 1;
            "met"
        } else {
            let digits = if measured < 100.0 { 4 } else { 0 };
            self.missed.push(format!("{what} ({measured:.digits$}, not {goal})"));
            "missed"
        }
    }

    /// Returns how many were met, and which were not, in a sentence.
    pub(crate) fn summary(&self) -> String {
        let all = self.met + self.missed.len();
        if self.missed.is_empty() {
            return format!("All {all} goals are met.");
        }
        format!("{} of {all} goals are met. Missed: {}.", self.met, self.missed.join("; "))
    }
}
