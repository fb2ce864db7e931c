//! What the scenarios are run for.

/// The form of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Delta,
    Sotw,
}

/// How a client asks for resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) variant: Variant,
    /// One stream for all types; else each type's own service.
    pub(crate) aggregated: bool,
}

const DELTA_ADS: Subscription = Subscription { variant: Variant::Delta, aggregated: true };
const SOTW_ADS: Subscription = Subscription { variant: Variant::Sotw, aggregated: true };
const DELTA_SEPARATE: Subscription = Subscription { variant: Variant::Delta, aggregated: false };
const SOTW_SEPARATE: Subscription = Subscription { variant: Variant::Sotw, aggregated: false };

/// Whether the server serves it. Scenarios for what is not served are not run.
const SERVED: [(Subscription, bool); 4] =
    [(DELTA_ADS, true), (SOTW_ADS, true), (DELTA_SEPARATE, true), (SOTW_SEPARATE, true)];

/// What is served of those that fit.
pub(crate) fn served(fits: impl Fn(Subscription) -> bool) -> impl Iterator<Item = Subscription> {
    SERVED
        .into_iter()
        .filter(move |(subscription, served)| *served && fits(*subscription))
        .map(|(subscription, _)| subscription)
}
