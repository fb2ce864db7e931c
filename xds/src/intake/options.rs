//! Options of the intake.

use std::time::Duration;

use super::load_report::LoadReporting;

/// What happens to a message for which the queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is dropped, undecoded, and counted. What is queued already stays.
    #[default]
    DropNewest,
    /// Its stream is not read until there is room: flow control then holds up the client, which drops on
    /// its side. A message that is larger than the whole queue is dropped and counted.
    Wait,
}

/// Options of an [`Intake`](super::Intake). The limits hold for load reports and for access logs apart.
///
/// ```
/// use clairvoy_xds::{Intake, IntakeOptions, Overflow};
///
/// let mut options = IntakeOptions::default();
/// options.overflow = Overflow::Wait;
/// options.max_queued_bytes = 16 << 20;
/// assert!(Intake::new(options).is_ok());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct IntakeOptions {
    /// What clients are asked to report.
    pub load_reporting: LoadReporting,
    /// Streams open at a time for each service; more are refused with `RESOURCE_EXHAUSTED`. 10,000 by
    /// default.
    pub max_streams: usize,
    /// Bytes of one message; a larger one ends its stream with `OUT_OF_RANGE`. 4 MiB by default; proxies
    /// cut access logs into far smaller batches, and more than 16 MiB is of no use. A stream buffers as much.
    pub max_message_bytes: usize,
    /// Messages that wait for a receiver. 1,024 by default.
    pub max_queued_messages: usize,
    /// Bytes that waiting messages take, as they lie decoded in memory. An estimate from their encoded
    /// size and the number of entries, which is several times the encoded size. 64 MiB by default.
    pub max_queued_bytes: usize,
    /// What happens beyond these.
    pub overflow: Overflow,
}

impl Default for IntakeOptions {
    fn default() -> Self {
        Self {
            load_reporting: LoadReporting::default(),
            max_streams: 10_000,
            max_message_bytes: 4 << 20,
            max_queued_messages: 1024,
            max_queued_bytes: 64 << 20,
            overflow: Overflow::default(),
        }
    }
}

impl IntakeOptions {
    pub(super) fn check(&self) -> Result<(), InvalidIntake> {
        self.load_reporting.check()?;
        for (option, value) in [
            ("max_streams", self.max_streams),
            ("max_message_bytes", self.max_message_bytes),
            ("max_queued_messages", self.max_queued_messages),
            ("max_queued_bytes", self.max_queued_bytes),
        ] {
            if value == 0 {
                return Err(InvalidIntake::Zero { option });
            }
        }
        Ok(())
    }
}

/// Why an intake cannot work as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIntake {
    /// Clients count in whole milliseconds, and one that is told 0 reports without pause.
    #[error("a load reporting interval of {interval:?} is not between 1 ms and a day")]
    Interval {
        /// The interval asked for.
        interval: Duration,
    },
    /// A limit that lets nothing through.
    #[error("{option} is 0")]
    Zero {
        /// The name of the option.
        option: &'static str,
    },
}
