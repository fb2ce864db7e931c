use super::{Assembler, Backend};

/// The own clock was set back. Times that it gave before are ahead of it now, and nothing newer would come for as long as
/// that lasts: they are moved by as much.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct SetBack {
    now_ms: i64,
    by_ms: i64,
}

impl SetBack {
    /// None when time went on.
    fn between(before_ms: i64, now_ms: i64) -> Option<Self> {
        let by_ms = before_ms.checked_sub(now_ms).filter(|by_ms| *by_ms > 0)?;
        Some(Self { now_ms, by_ms })
    }

    /// The same, seen later.
    pub(super) fn at(self, now_ms: i64) -> Self {
        Self { now_ms, ..self }
    }

    /// Moves a time that lies ahead.
    pub(in super::super) fn apply(self, time_ms: &mut i64) {
        if *time_ms > self.now_ms {
            *time_ms -= self.by_ms;
        }
    }
}

impl Assembler {
    /// Follows the own clock where it was set back.
    pub(super) fn look_at_clock(&mut self, now_ms: i64) {
        let before_ms = std::mem::replace(&mut self.clock_ms, now_ms);
        if let Some(set_back) = SetBack::between(before_ms, now_ms) {
            self.set_back = Some(set_back);
            self.backends.values_mut().for_each(|backend| backend.set_back(set_back));
        }
    }
}

impl Backend {
    fn set_back(&mut self, by: SetBack) {
        if let Some(pending) = &mut self.pending {
            let times =
                [&mut pending.first_ms, &mut pending.newest_ms, &mut pending.since_ms, &mut pending.heard_ms];
            times.into_iter().for_each(|time_ms| by.apply(time_ms));
            pending.newest_ms = pending.newest_ms.max(pending.first_ms);
        }
        if let Some((_, closed_ms)) = &mut self.previous {
            by.apply(closed_ms);
        }
        self.series.set_back(by);
        self.watched.set_back(by);
    }
}
