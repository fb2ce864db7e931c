use std::fmt;
use std::time::Duration;

use super::embedded::EmbeddedSettings;

/// Which database to use and how.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// `postgres://user:password@host/database` of a Postgres 15 or newer. A secret: it is never shown. Left out, an
    /// embedded server is run.
    pub url: Option<String>,
    /// For the embedded server; not looked at when there is a `url`.
    pub embedded: EmbeddedSettings,
    /// How long to go on trying to connect when Clairvoy starts.
    pub connect_timeout: Duration,
    /// The most connections at a time, the telemetry writer's not counted.
    pub max_connections: u32,
}

impl DatabaseSettings {
    /// Time to connect unless set otherwise: a database that starts together with Clairvoy is up by then.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
    /// Connections unless set otherwise: far below the 100 that Postgres allows.
    pub const MAX_CONNECTIONS: u32 = 10;

    /// Returns the usual settings for an embedded server.
    #[must_use]
    pub fn embedded(embedded: EmbeddedSettings) -> Self {
        Self {
            url: None,
            embedded,
            connect_timeout: Self::CONNECT_TIMEOUT,
            max_connections: Self::MAX_CONNECTIONS,
        }
    }
}

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DatabaseSettings")
            .field("url", &self.url.as_ref().map(|_| "(secret)"))
            .field("embedded", &self.embedded)
            .field("connect_timeout", &self.connect_timeout)
            .field("max_connections", &self.max_connections)
            .finish()
    }
}

/// How long rows are kept, in days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Raw samples; whole UTC days.
    pub samples_days: u32,
    /// Samples by the minute, and trained models; whole UTC days, for pools and models whole months.
    pub minutes_days: u32,
    /// Samples by the hour, and backends that were not seen since; whole UTC months.
    pub hours_days: u32,
    /// Demand history, counted from when a row was recorded.
    pub demand_days: u32,
    /// Issued forecasts.
    pub forecasts_days: u32,
    /// Decisions.
    pub decisions_days: u32,
    /// Events.
    pub events_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            samples_days: 7,
            minutes_days: 90,
            hours_days: 730,
            demand_days: 730,
            forecasts_days: 30,
            decisions_days: 30,
            events_days: 14,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_url_is_never_shown() {
        let embedded = EmbeddedSettings { data_dir: PathBuf::from("state"), postgres_bin: None };
        let mut settings = DatabaseSettings::embedded(embedded);
        settings.url = Some("postgres://u:hunter2@h/d".to_owned());
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
