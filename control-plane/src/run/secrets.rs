use anyhow::{Context, bail};

use crate::api::{BoundToken, Token};
use crate::config::Config;
use crate::push::PushSenders;
use crate::signal::{Secret, WebhookEndpoint};
use crate::telemetry::{page_certificates, page_token};

use super::tls;

/// Shorter tokens are refused.
const SHORTEST: usize = 16;

/// Checks that the secrets and certificates which the configuration names are there and usable.
pub fn check_secrets(config: &Config) -> anyhow::Result<()> {
    token(config)?;
    push_senders(config)?;
    pool_tokens(config)?;
    page_secrets(config)?;
    endpoints(config)?;
    tls::Listeners::open(config).map(drop)
}

/// The token that the configuration names, from the environment.
pub(super) fn token(config: &Config) -> anyhow::Result<Option<Token>> {
    config.listen.token_env.as_ref().map(|name| token_of(name, "listen.token_env")).transpose()
}

/// Who may push: the tokens that the configuration names, from the environment, and the names in certificates.
pub(super) fn push_senders(config: &Config) -> anyhow::Result<PushSenders> {
    let mut senders = PushSenders::default();
    for sender in &config.telemetry.push.tokens {
        let token = token_of(&sender.token_env, "telemetry.push.tokens")?;
        senders.add_token(token, sender.pools.iter().cloned());
    }
    for client in &config.telemetry.push.clients {
        senders.add_client(client.san.clone(), client.pools.iter().cloned());
    }
    Ok(senders)
}

/// The tokens that are good for some pools only.
pub(super) fn pool_tokens(config: &Config) -> anyhow::Result<Vec<BoundToken>> {
    let tokens = config.listen.tokens.iter();
    tokens
        .map(|bound| {
            let token = token_of(&bound.token_env, "listen.tokens")?;
            Ok(BoundToken { token, pools: bound.pools.clone() })
        })
        .collect()
}

/// Reads what scraped pages ask for.
pub(super) fn page_secrets(config: &Config) -> anyhow::Result<()> {
    for pool in &config.pools {
        let read = page_token(&pool.metrics_access).and(page_certificates(&pool.metrics_access).map(drop));
        read.map_err(|error| anyhow::anyhow!("metrics_access of pool {}: {error}", pool.name))?;
    }
    Ok(())
}

/// The webhooks with their secrets.
pub(super) fn endpoints(config: &Config) -> anyhow::Result<Vec<WebhookEndpoint>> {
    let mut endpoints = Vec::new();
    for webhook in &config.signals.webhooks {
        let name = &webhook.secret_env;
        let text = std::env::var(name)
            .with_context(|| format!("environment variable {name} (secret_env of a webhook) is not set"))?;
        let secret = Secret::parse(&text).with_context(|| format!("the secret in {name} is not usable"))?;
        endpoints.push(WebhookEndpoint { url: webhook.url.clone(), secret });
    }
    Ok(endpoints)
}

fn token_of(name: &str, field: &str) -> anyhow::Result<Token> {
    match std::env::var(name) {
        Ok(text) if text.trim().len() >= SHORTEST => Ok(Token::new(text.trim())),
        Ok(_) => bail!("environment variable {name} ({field}) holds less than {SHORTEST} characters"),
        Err(_) => bail!("environment variable {name} ({field}) is not set"),
    }
}
