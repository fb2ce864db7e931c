use std::collections::{BTreeMap, BTreeSet};

use garde::{Error, Path, Report, Validate};

use clairvoy_forecaster::DemandForecaster;

use super::{Config, Engine, GpuMetrics, MetricNames, Pool};

/// What spans several fields: names that must be unique or exist, and values that must fit each other.
impl Validate for Config {
    type Context = ();

    fn validate_into(&self, context: &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        let root = parent();
        let mut fault = |path: Path, message: String| report.append(path, Error::new(message));
        self.check_listen(&root, &mut fault);
        self.check_database(&root, &mut fault);
        self.check_gateways(&root, &mut fault);
        self.check_telemetry(&root, &mut fault);
        self.check_push(&root, &mut fault);
        self.check_orca(&root, &mut fault);
        self.check_envoy(&root, &mut fault);
        self.check_forecast(&root, &mut fault);
        self.check_models(&root, &mut fault);
        self.check_balance_of_models(&root, &mut fault);
        self.check_health(&root, &mut fault);
        self.check_lanes(&root, &mut fault);
        self.check_zones(&root, &mut fault);
        self.check_pools(&root, &mut fault);
        self.check_discovery(&root, &mut fault);
        self.check_webhooks(&root, &mut fault);

        let at = |name: &'static str| root.join(name);
        self.balance.validate_into(context, &mut || at("balance"), report);
        self.forecast.validate_into(context, &mut || at("forecast"), report);
        self.signals.validate_into(context, &mut || at("signals"), report);
        for (index, gateway) in self.gateways.iter().enumerate() {
            gateway.validate_into(context, &mut || at("gateways").join(index), report);
        }
        for (index, model) in self.models.iter().enumerate() {
            model.validate_into(context, &mut || at("models").join(index), report);
        }
        for (index, pool) in self.pools.iter().enumerate() {
            pool.validate_into(context, &mut || at("pools").join(index), report);
        }
    }
}

pub(super) type Fault<'a> = dyn FnMut(Path, String) + 'a;

impl Config {
    fn check_database(&self, root: &Path, fault: &mut Fault<'_>) {
        let retention = root.join("database").join("retention");
        for (field, message) in self.database.retention.faults() {
            fault(retention.join(field), message);
        }
    }

    fn check_gateways(&self, root: &Path, fault: &mut Fault<'_>) {
        let mut names = BTreeSet::new();
        let mut clusters = BTreeSet::new();
        for (index, gateway) in self.gateways.iter().enumerate() {
            let path = root.join("gateways").join(index);
            if !names.insert(&gateway.name) {
                fault(path.join("name"), format!("gateway `{}` is there twice", gateway.name));
            }
            if !clusters.insert(&gateway.node_cluster) {
                let whose = gateway.node_cluster.as_deref().unwrap_or("all other Envoys");
                fault(
                    path.join("name"),
                    format!("two gateways for `{whose}`: set `node_cluster` on one of them"),
                );
            }
        }
    }

    fn check_telemetry(&self, root: &Path, fault: &mut Fault<'_>) {
        let telemetry = root.join("telemetry");
        if !(0.1..=5.0).contains(&self.telemetry.interval.as_seconds()) {
            fault(
                telemetry.join("interval"),
                "must be 100ms to 5s: older telemetry is not trusted".to_owned(),
            );
        }
        if self.telemetry.deadline > self.telemetry.interval || self.telemetry.deadline.0.is_zero() {
            fault(
                telemetry.join("deadline"),
                "must be more than 0 and not longer than `interval`".to_owned(),
            );
        }
        if self.telemetry.max_page_bytes < 1024 {
            fault(telemetry.join("max_page_bytes"), "less than 1024 bytes".to_owned());
        }
        if self.telemetry.queue_rows < 100 {
            fault(telemetry.join("queue_rows"), "less than 100 rows".to_owned());
        }
        if let Some(message) = self.telemetry.spool.fault() {
            fault(telemetry.join("spool").join("bytes"), message);
        }
    }

    fn check_forecast(&self, root: &Path, fault: &mut Fault<'_>) {
        let path = root.join("forecast");
        let step = self.forecast.step.0;
        if step.as_secs() == 0 || step.subsec_nanos() != 0 || step.as_secs() > 3600 {
            fault(path.join("step"), "must be whole seconds, 1s to 1h".to_owned());
            return;
        }
        let steps = |span: std::time::Duration| {
            (span.subsec_nanos() == 0 && span.as_secs().is_multiple_of(step.as_secs()))
                .then(|| span.as_secs() / step.as_secs())
        };
        match steps(self.forecast.season.0) {
            Some(2..=100_000) => {}
            _ => fault(
                path.join("season"),
                format!("must be 2 to 100000 whole steps of {}", self.forecast.step),
            ),
        }
        for (index, horizon) in self.forecast.horizons.iter().enumerate() {
            if !matches!(steps(horizon.0), Some(1..=100_000)) {
                let message = format!("{horizon} is no multiple of the step {}", self.forecast.step);
                fault(path.join("horizons").join(index), message);
            }
        }
        match DemandForecaster::history_steps(&self.forecast.in_steps()) {
            Ok(_) => {}
            Err(error @ clairvoy_forecaster::Error::SeasonSteps { .. }) => {
                fault(path.join("season"), error.to_string())
            }
            Err(error) => fault(path.join("horizons"), error.to_string()),
        }
        if self.forecast.refit_every.as_seconds() < 1.0 {
            fault(path.join("refit_every"), "less than 1s".to_owned());
        }
    }

    fn check_models(&self, root: &Path, fault: &mut Fault<'_>) {
        let mut names = BTreeSet::new();
        let mut users = BTreeMap::new();
        for (index, model) in self.models.iter().enumerate() {
            let path = root.join("models").join(index);
            if !names.insert(&model.name) {
                fault(path.join("name"), format!("model `{}` is there twice", model.name));
            }
            for (position, pool) in model.pools.iter().enumerate() {
                let path = path.join("pools").join(position);
                if self.pool(pool).is_none() {
                    fault(path, format!("there is no pool `{pool}`"));
                } else if let Some(other) = users.insert(pool, &model.name) {
                    fault(
                        path,
                        format!("pool `{pool}` already serves model `{other}`: a pool serves one model"),
                    );
                }
            }
        }
    }

    fn check_pools(&self, root: &Path, fault: &mut Fault<'_>) {
        let mut names = BTreeSet::new();
        let mut addresses = BTreeMap::new();
        for (index, pool) in self.pools.iter().enumerate() {
            let path = root.join("pools").join(index);
            if !names.insert(&pool.name) {
                fault(path.join("name"), format!("pool `{}` is there twice", pool.name));
            }
            if !self.models.iter().any(|model| model.pools.contains(&pool.name)) {
                fault(path.join("name"), format!("no model uses pool `{}`", pool.name));
            }
            if pool.replicas.min > pool.replicas.max {
                let message = format!("min {} is more than max {}", pool.replicas.min, pool.replicas.max);
                fault(path.join("replicas").join("min"), message);
            }
            check_names(pool, &path, fault);
            for (position, address) in pool.backends.iter().enumerate() {
                let path = path.join("backends").join(position);
                if address.port() == 0 || address.ip().is_unspecified() {
                    fault(path, format!("{address} is no address that Envoy can connect to"));
                } else if let Some(other) = addresses.insert(*address, &pool.name) {
                    fault(path, format!("{address} is already in pool `{other}`"));
                }
            }
        }
    }

    fn check_webhooks(&self, root: &Path, fault: &mut Fault<'_>) {
        for (index, webhook) in self.signals.webhooks.iter().enumerate() {
            let path = root.join("signals").join("webhooks").join(index).join("url");
            match reqwest::Url::parse(&webhook.url) {
                Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                    if !url.username().is_empty() || url.password().is_some() {
                        fault(
                            path,
                            "a URL with a user name or password in it: secrets belong in the environment"
                                .into(),
                        );
                    }
                }
                Ok(_) => fault(path, "must start with http:// or https://".to_owned()),
                Err(error) => fault(path, format!("no URL: {error}")),
            }
        }
    }
}

/// Where and under which names a pool's metrics are read.
fn check_names(pool: &Pool, path: &Path, fault: &mut Fault<'_>) {
    for (key, message) in pool.metrics.faults() {
        fault(path.join("metrics").join(key), message);
    }
    if pool.engine == Engine::Custom && pool.metrics == MetricNames::default() {
        fault(
            path.join("engine"),
            "`custom` reads only what `metrics` names, and it names nothing".to_owned(),
        );
    }
    let mut check_url = |path: Path, template: &str| {
        let url = template.replace("{host}", "127.0.0.1").replace("{port}", "1");
        if !reqwest::Url::parse(&url).is_ok_and(|url| matches!(url.scheme(), "http" | "https")) {
            fault(path, format!("{template} is no URL of http or https"));
        }
    };
    if let Some(template) = &pool.metrics_url {
        check_url(path.join("metrics_url"), template);
    }
    let GpuMetrics::Page(gpu) = &pool.gpu_metrics else { return };
    let path = path.join("gpu_metrics");
    if let Some(template) = &gpu.url {
        check_url(path.join("url"), template);
    }
    for backend in gpu.backends.keys() {
        if backend.parse::<std::net::SocketAddr>().is_err() {
            fault(path.join("backends").join(backend.clone()), format!("{backend} is no `ip:port`"));
        }
    }
}
