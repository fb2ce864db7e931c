use anyhow::Context as _;
use chrono::{DateTime, Utc};

use crate::config;
use crate::run::{Overrides, database_settings};
use crate::store::Store;

use super::super::ConfigFile;
use super::series::Table;

/// Reads the demand on every configured model, as far back as it is kept.
pub(super) fn read(file: &ConfigFile) -> anyhow::Result<Table> {
    let overrides = Overrides {
        data_dir: file.data_dir.clone(),
        database_url: file.database_url.clone(),
        ..Overrides::default()
    };
    let config = overrides.apply(config::load(&file.config)?);
    config::check(&config).map_err(anyhow::Error::msg)?;
    let step_seconds = config.forecast.in_steps().grid.step_seconds;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rates = runtime.block_on(async {
        let store = Store::open_as_it_is(database_settings(&config)).await?;
        let mut rates = Vec::new();
        for model in &config.models {
            let rows = store.demand(&model.name, step_seconds, DateTime::UNIX_EPOCH, Utc::now()).await?;
            let by_start = rows.into_iter().map(|row| (row.at.timestamp(), Some(row.requests_per_second)));
            rates.push((model.name.clone(), by_start.collect()));
        }
        store.close().await?;
        anyhow::Ok(rates)
    })?;
    Table::new(Some(step_seconds), rates)
        .context("the database; demand is stored while `clairvoy serve` runs, or by its API")
}
