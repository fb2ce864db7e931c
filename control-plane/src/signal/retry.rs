use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

/// Longest wait that a receiver can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// When a delivery is tried again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    /// Wait before each attempt, the first included; after the last one the delivery has failed.
    pub(super) delays: Vec<Duration>,
    /// Each wait is shortened or stretched by up to this share, so that receivers are not hit in step.
    pub(super) jitter: f64,
    /// Where the jitter comes from.
    pub(super) seed: u64,
}

impl Schedule {
    /// Returns the wait before an attempt (counted from 0) at one event, or none if there are no more attempts.
    pub(super) fn delay(&self, event: Uuid, attempt: u32) -> Option<Duration> {
        let delay = self.delays.get(usize::try_from(attempt).ok()?)?;
        let mut hasher = DefaultHasher::new();
        (self.seed, event, attempt).hash(&mut hasher);
        // The upper 32 bits as a number from -1 to 1.
        let upper = u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX);
        let swing = f64::from(upper) / f64::from(u32::MAX) * 2.0 - 1.0;
        Some(delay.mul_f64(1.0 + self.jitter.clamp(0.0, 1.0) * swing))
    }
}

/// What became of one POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The receiver answered.
    Status {
        /// The HTTP status.
        status: u16,
        /// The wait it asked for.
        retry_after: Option<Duration>,
    },
    /// No answer, with the reason.
    None(String),
}

/// What an answer means for the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The receiver has it.
    Delivered,
    /// The receiver wants no more webhooks at all.
    Gone,
    /// It may work later, not before this wait is over.
    TryAgain(Duration),
}

/// Judges an answer: only 2xx is success, 410 ends the endpoint, all else (redirects too) is tried again.
pub(super) fn judge(answer: &Answer) -> Verdict {
    match answer {
        Answer::Status { status: 200..=299, .. } => Verdict::Delivered,
        Answer::Status { status: 410, .. } => Verdict::Gone,
        Answer::Status { retry_after, .. } => Verdict::TryAgain(retry_after.unwrap_or_default()),
        Answer::None(_) => Verdict::TryAgain(Duration::ZERO),
    }
}

/// Reads a `Retry-After` header: seconds, or a date.
pub(super) fn retry_after(header: &str, now: DateTime<Utc>) -> Option<Duration> {
    let header = header.trim();
    let wait = match header.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = DateTime::parse_from_rfc2822(header).ok()?;
            (date.with_timezone(&Utc) - now).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;

    use super::*;

    #[test]
    fn delays_follow_the_schedule_within_the_jitter_and_repeat_for_a_seed() {
        let delays = [0, 1, 5, 30].map(Duration::from_secs).to_vec();
        let schedule = Schedule { delays, jitter: 0.2, seed: 7 };
        let event = Uuid::from_u128(1);
        assert_eq!(schedule.delay(event, 0), Some(Duration::ZERO));
        assert_eq!(schedule.delay(event, 4), None);
        for (attempt, seconds) in [(1, 1.0), (2, 5.0), (3, 30.0)] {
            let delay = schedule.delay(event, attempt).unwrap();
            assert!((delay.as_secs_f64() / seconds - 1.0).abs() <= 0.2, "{delay:?}");
            assert_eq!(schedule.delay(event, attempt), Some(delay));
        }
        let other = Schedule { seed: 8, ..schedule.clone() };
        assert_ne!(schedule.delay(event, 3), other.delay(event, 3));
    }

    #[test]
    fn answers_are_judged() {
        let status = |status, retry_after| judge(&Answer::Status { status, retry_after });
        assert_eq!(status(204, None), Verdict::Delivered);
        assert_eq!(status(410, None), Verdict::Gone);
        assert_eq!(status(302, None), Verdict::TryAgain(Duration::ZERO));
        let wait = Duration::from_secs(7);
        assert_eq!(status(429, Some(wait)), Verdict::TryAgain(wait));
        assert_eq!(judge(&Answer::None("refused".into())), Verdict::TryAgain(Duration::ZERO));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Utc.with_ymd_and_hms(2026, 11, 21, 4, 30, 0).unwrap();
        let read = |header| retry_after(header, now);
        assert_eq!(read("120"), Some(Duration::from_secs(120)));
        assert_eq!(read("Sat, 21 Nov 2026 04:31:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(read("Sat, 21 Nov 2026 04:29:00 GMT"), Some(Duration::ZERO));
        assert_eq!(read("99999999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(read("soon"), None);
    }
}
