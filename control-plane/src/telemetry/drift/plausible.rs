use super::Observation;
use super::fault::{FaultKind, TelemetryFault};
use crate::telemetry::drops::DropReason;
use crate::telemetry::field::Field;
use crate::telemetry::limits::Limit;

/// Of the last eight pages, those with a dropped value of a field that make it a fault, and those that keep it one.
const BEGINS_AT: u32 = 5;
const LASTS_ABOVE: u32 = 1;

/// Pages in a row above a limit: gauges and limits may be of different moments.
const PAGES_ABOVE_LIMIT: u8 = 3;

/// Whether values are such as a working server has.
#[derive(Debug)]
pub(super) struct Plausible {
    /// For each field the last eight pages, newest lowest: whether a value was dropped.
    dropped: [u8; Field::COUNT],
    reasons: [Option<DropReason>; Field::COUNT],
    faulty: [bool; Field::COUNT],
    pages_above_limit: u8,
}

impl Default for Plausible {
    fn default() -> Self {
        let (dropped, reasons, faulty) = ([0; Field::COUNT], [None; Field::COUNT], [false; Field::COUNT]);
        Self { dropped, reasons, faulty, pages_above_limit: 0 }
    }
}

impl Plausible {
    pub(super) fn observe(&mut self, seen: &Observation<'_>, faults: &mut Vec<TelemetryFault>) {
        self.dropped.iter_mut().for_each(|pages| *pages <<= 1);
        for (field, reason, _) in seen.page.drops.iter() {
            self.dropped[field as usize] |= 1;
            self.reasons[field as usize] = Some(reason);
        }
        for field in Field::ALL {
            let pages = self.dropped[field as usize].count_ones();
            let faulty = &mut self.faulty[field as usize];
            *faulty = pages >= BEGINS_AT || (*faulty && pages > LASTS_ABOVE);
            if *faulty {
                let reason = self.reasons[field as usize].map_or("unknown", DropReason::as_str);
                let detail = format!("is dropped again and again: {reason}");
                faults.push(TelemetryFault { kind: FaultKind::Implausible, field: Some(field), detail });
            }
        }
        let running = seen.page.reading.get(Field::Running);
        let limit = seen.limits.max_running.filter(Limit::is_firm);
        let above = running.zip(limit).filter(|(running, limit)| *running > limit.value * 1.05 + 1.0);
        self.pages_above_limit = above.map_or(0, |_| self.pages_above_limit.saturating_add(1));
        if let (Some((running, limit)), true) = (above, self.pages_above_limit >= PAGES_ABOVE_LIMIT) {
            let detail = format!("is {running}, above the limit of {}", limit.value);
            faults.push(TelemetryFault { kind: FaultKind::AboveLimit, field: Some(Field::Running), detail });
        }
    }
}
