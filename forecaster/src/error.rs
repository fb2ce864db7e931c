use thiserror::Error;

/// Why a configuration or a saved state was refused.
///
/// Values of a series are never a reason: what is not finite counts as unknown, what is negative as zero.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// A step must last at least one second.
    #[error("step of {0} s: must be at least 1 s")]
    StepSeconds(u32),
    /// The season is empty or too long for the bounded history.
    #[error("season of {found} steps: must be between 1 and {max}")]
    SeasonSteps {
        /// The refused length, in steps.
        found: u32,
        /// The longest accepted season, in steps.
        max: u32,
    },
    /// No horizon, or more than are supported.
    #[error("{found} horizons: must be between 1 and {max}")]
    HorizonCount {
        /// How many were given.
        found: usize,
        /// The most that are accepted.
        max: usize,
    },
    /// A horizon is zero, longer than half the history, or not above the one before it.
    #[error("horizon of {found} steps: horizons must ascend, from at least 1 to at most {max}")]
    Horizon {
        /// The refused horizon, in steps.
        found: u32,
        /// The longest accepted horizon, in steps.
        max: u32,
    },
    /// A step is so far from zero that arithmetic on it could overflow.
    #[error("step {0}: must lie within 2^53 of zero")]
    StepRange(i64),
    /// A saved state was written by another format of this library.
    #[error("state version {found}: this library reads {supported}")]
    Version {
        /// The version found in the state.
        found: u32,
        /// The version that can be read.
        supported: u32,
    },
    /// A saved state contradicts itself.
    #[error("saved state is inconsistent: {0}")]
    Inconsistent(&'static str),
}
