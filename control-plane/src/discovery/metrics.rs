use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPool {
    pool: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfLookup {
    pool: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRefusal {
    pool: String,
    origin: &'static str,
}

/// Series about backends that are found or registered.
#[derive(Clone, Debug)]
pub(crate) struct DiscoveryMetrics {
    stale: Family<OfPool, Gauge>,
    holding: Family<OfPool, Gauge>,
    lookups: Family<OfLookup, Counter>,
    refused: Family<OfRefusal, Counter>,
    expired: Family<OfPool, Counter>,
    registrations: Family<OfLookup, Counter>,
}

impl DiscoveryMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            stale: Family::default(),
            holding: Family::default(),
            lookups: Family::default(),
            refused: Family::default(),
            expired: Family::default(),
            registrations: Family::default(),
        };
        registry.register(
            "clairvoy_discovery_stale",
            "1 while a pool keeps backends that its source no longer vouches for: lookups fail or are empty, or the \
             lease of its last backend is over; else 0",
            metrics.stale.clone(),
        );
        registry.register(
            "clairvoy_discovery_holding",
            "1 while backends of a pool are kept because more than half of it was gone at once, else 0",
            metrics.holding.clone(),
        );
        registry.register(
            "clairvoy_discovery_lookups",
            "Lookups of a pool's backends in DNS, by outcome",
            metrics.lookups.clone(),
        );
        registry.register(
            "clairvoy_discovery_refused",
            "Backends refused because they lie outside the pool's allowed networks",
            metrics.refused.clone(),
        );
        registry.register(
            "clairvoy_discovery_leases_expired",
            "Backends that left because their lease was over",
            metrics.expired.clone(),
        );
        registry.register(
            "clairvoy_registrations",
            "Requests to register a backend, renewals among them, by pool and outcome",
            metrics.registrations.clone(),
        );
        metrics
    }

    /// Sets the state of all pools that have one.
    pub(crate) fn read<'a>(&self, pools: impl Iterator<Item = (&'a str, bool, bool)>) {
        self.stale.clear();
        self.holding.clear();
        for (pool, stale, holding) in pools {
            let labels = OfPool { pool: pool.to_owned() };
            self.stale.get_or_create(&labels).set(i64::from(stale));
            self.holding.get_or_create(&labels).set(i64::from(holding));
        }
    }

    pub(crate) fn looked(&self, pool: &str, outcome: &'static str) {
        self.lookups.get_or_create(&OfLookup { pool: pool.to_owned(), outcome }).inc();
    }

    pub(crate) fn refused(&self, pool: &str, origin: &'static str) {
        self.refused.get_or_create(&OfRefusal { pool: pool.to_owned(), origin }).inc();
    }

    pub(crate) fn registration(&self, pool: &str, outcome: &'static str) {
        self.registrations.get_or_create(&OfLookup { pool: pool.to_owned(), outcome }).inc();
    }

    pub(crate) fn expired(&self, pool: &str) {
        self.expired.get_or_create(&OfPool { pool: pool.to_owned() }).inc();
    }
}
