use super::Observation;
use super::fault::{FaultKind, TelemetryFault};
use crate::telemetry::field::{Field, Kind};
use crate::telemetry::reading::EngineReading;

/// A counter, and another one that cannot go on for long without it.
struct Rule {
    subject: Field,
    driver: Field,
    /// How far the driver may go alone.
    alone: f64,
    /// And how much farther for each running request.
    alone_per_running: f64,
}

const fn rule(subject: Field, driver: Field, alone: f64, alone_per_running: f64) -> Rule {
    Rule { subject, driver, alone, alone_per_running }
}

/// A request may be long: of what ends with it, twenty must be missing beside those that run; of tokens, as many as
/// the longest answers have.
const RULES: [Rule; 7] = [
    rule(Field::Completed, Field::TtftCount, 20.0, 2.0),
    rule(Field::Completed, Field::OutputTokens, 100_000.0, 50_000.0),
    rule(Field::TtftCount, Field::Completed, 20.0, 2.0),
    rule(Field::PromptTokens, Field::Completed, 20.0, 2.0),
    rule(Field::OutputTokens, Field::Completed, 20.0, 2.0),
    rule(Field::Iterations, Field::OutputTokens, 10_000.0, 1_000.0),
    rule(Field::Running, Field::OutputTokens, 50_000.0, 0.0),
];

/// Pages in a row on which nothing moves although requests are there: longer than any step takes.
const FROZEN_PAGES: u32 = 30;

/// Which numbers move.
#[derive(Debug, Default)]
pub(super) struct Still {
    previous: Option<EngineReading>,
    /// For each rule, how far the driver went since the subject moved.
    alone: [f64; RULES.len()],
    most_running: f64,
    frozen_pages: u32,
}

impl Still {
    /// Takes in a page; true when it shows traffic.
    pub(super) fn observe(&mut self, seen: &Observation<'_>, faults: &mut Vec<TelemetryFault>) -> bool {
        let reading = &seen.page.reading;
        let running = reading.get(Field::Running).unwrap_or(0.0);
        let queued = reading.get(Field::QueueDepth).unwrap_or(0.0);
        self.most_running = self.most_running.max(running);
        let mut engines = reading.clone();
        // The exporter of this gauge goes on when the engine hangs.
        engines.clear(Field::GpuUtilisation);
        let Some(previous) = self.previous.replace(engines.clone()).filter(|_| !seen.restarted) else {
            self.alone = Default::default();
            self.frozen_pages = 0;
            return running > 0.0;
        };
        let grown = |field| match (previous.get(field), reading.get(field)) {
            (Some(before), Some(now)) => now - before,
            _ => 0.0,
        };
        for (rule, alone) in RULES.iter().zip(&mut self.alone) {
            let moves = match rule.subject.kind() {
                Kind::Gauge => running > 0.0,
                _ => grown(rule.subject) > 0.0,
            };
            // One that never counted may have nothing to count, such as output tokens of an embedding.
            let counts = reading.get(rule.subject).is_some_and(|value| value > 0.0)
                || (rule.subject.kind() == Kind::Gauge && reading.get(rule.subject).is_some());
            *alone = if moves || !counts { 0.0 } else { *alone + grown(rule.driver).max(0.0) };
            if *alone > rule.alone + rule.alone_per_running * self.most_running
                && !faults.iter().any(|fault| fault.field == Some(rule.subject))
            {
                let detail = format!("stands still while {} grows", rule.driver);
                faults.push(TelemetryFault {
                    kind: FaultKind::StandsStill,
                    field: Some(rule.subject),
                    detail,
                });
            }
        }
        let frozen = running + queued > 0.0 && previous == engines;
        self.frozen_pages = if frozen { self.frozen_pages.saturating_add(1) } else { 0 };
        if self.frozen_pages >= FROZEN_PAGES {
            let detail =
                format!("all numbers stand still with {running} requests running and {queued} waiting");
            faults.push(TelemetryFault { kind: FaultKind::Frozen, field: None, detail });
        }
        let counted = Field::ALL.into_iter().filter(|field| field.kind() == Kind::Counter);
        running > 0.0 || counted.into_iter().any(|field| grown(field) > 0.0)
    }
}
