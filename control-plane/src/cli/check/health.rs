use std::net::SocketAddr;

use futures::StreamExt;
use reqwest::{Client, StatusCode, header};

use crate::compile::{CheckIntent, HealthIntent};
use crate::config::{Config, Model, Pool};
use crate::telemetry::{client_builder, root_cause};

use super::{Finding, NAMED, State};

/// Backends that are asked at once.
const AT_ONCE: usize = 64;

/// Asks every listed backend of the models with checks as Envoys would, who send nothing to those that fail.
pub(super) async fn checks(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for model in &config.models {
        if let Some(check) = HealthIntent::of(model, config).checks {
            findings.extend(ask(config, model, &check).await);
        }
    }
    findings
}

async fn ask(config: &Config, model: &Model, check: &CheckIntent) -> Option<Finding> {
    let pools = model.pools.iter().filter_map(|name| config.pool(name));
    let checked = pools.filter(|pool: &&Pool| pool.health_checks);
    let addresses: Vec<SocketAddr> = checked.flat_map(|pool| pool.backends.iter().copied()).collect();
    if addresses.is_empty() {
        return None;
    }
    let client = match client_builder(false, model.connect_timeout().0).timeout(check.timeout.0).build() {
        Ok(client) => client,
        Err(error) => {
            let what = "health checks can be tried".to_owned();
            return Some(Finding { state: State::Bad, what, remedy: Some(error.to_string()) });
        }
    };
    let answers = addresses.iter().map(|address| one(&client, *address, &check.path));
    let failures: Vec<String> =
        futures::stream::iter(answers).buffered(AT_ONCE).filter_map(std::future::ready).collect().await;
    let good = addresses.len() - failures.len();
    let what = format!(
        "{good} of {} backends of model {} answer the health check {}",
        addresses.len(),
        model.name,
        check.path
    );
    if failures.is_empty() {
        return Some(Finding { state: State::Good, what, remedy: None });
    }
    let mut remedy: Vec<String> = failures.iter().take(NAMED).cloned().collect();
    if failures.len() > NAMED {
        remedy.push(format!("and {} more", failures.len() - NAMED));
    }
    remedy
        .push("Envoys send nothing to those: set `health.path` to one that is answered with 200".to_owned());
    let state = if good == 0 { State::Bad } else { State::Doubtful };
    Some(Finding { state, what, remedy: Some(remedy.join("\n")) })
}

/// What is wrong with the answer of a backend.
async fn one(client: &Client, address: SocketAddr, path: &str) -> Option<String> {
    let request = client.get(format!("http://{address}{path}")).header(header::HOST, "localhost");
    match request.send().await {
        Ok(answer) if answer.status() == StatusCode::OK => None,
        Ok(answer) => Some(format!("{address}: status {}", answer.status().as_u16())),
        Err(error) => Some(format!("{address}: {}", root_cause(&error))),
    }
}
