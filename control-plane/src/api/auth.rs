use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{ApiError, ApiState};

/// A secret that callers have to show. Never printed.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// A token of a given text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Its text, for those who have to show it.
    pub fn shown(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is the token. Digests are compared, so the time taken tells nothing about the token.
    pub fn is(&self, shown: &str) -> bool {
        Sha256::digest(shown.as_bytes()) == Sha256::digest(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

/// A token that is good for the backends of some pools only.
#[derive(Clone, Debug)]
pub struct BoundToken {
    /// The token.
    pub token: Token,
    /// The pools.
    pub pools: Vec<String>,
}

impl BoundToken {
    /// Whether it is good for a path of the API. Names of pools need no escapes, so one that has some is none of them.
    fn allows(&self, path: &str) -> bool {
        let Some((pool, rest)) = path.strip_prefix("/api/v1/pools/").and_then(|rest| rest.split_once('/'))
        else {
            return false;
        };
        let is_backends = rest == "backends" || rest.starts_with("backends/");
        is_backends && self.pools.iter().any(|name| name == pool)
    }
}

/// The bound token that a request shows.
fn bound_token<'a>(state: &'a ApiState, request: &Request) -> Option<&'a BoundToken> {
    if state.pool_tokens.is_empty() {
        return None;
    }
    let shown = shown(request.headers())?;
    if state.token.as_ref().is_some_and(|token| token.is(&shown)) {
        return None;
    }
    state.pool_tokens.iter().find(|bound| bound.token.is(&shown))
}

/// Lets a request through when it shows the token; without a configured token, when it comes from this machine and not
/// from a page of another site.
pub(super) async fn check(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    if let Some(bound) = bound_token(&state, &request) {
        return match bound.allows(request.uri().path()) {
            true if is_same_site(&request) => next.run(request).await,
            _ => {
                let message = format!(
                    "this token is good for /api/v1/pools/POOL/backends only, POOL being one of: {}",
                    bound.pools.join(", ")
                );
                ApiError::refused(StatusCode::FORBIDDEN, message).into_response()
            }
        };
    }
    let allowed = match &state.token {
        Some(token) => shown(request.headers()).is_some_and(|shown| token.is(&shown)),
        None => is_local(&request),
    };
    if allowed && is_same_site(&request) {
        return next.run(request).await;
    }
    if state.token.is_none() || !is_same_site(&request) {
        let message = "this API answers requests that were made to localhost only, and none from pages of other sites; \
                       set listen.token_env to use it from elsewhere";
        return ApiError::refused(StatusCode::FORBIDDEN, message).into_response();
    }
    let message = "a token is needed: `Authorization: Bearer TOKEN`, or the token as the password of basic authentication";
    let mut response = ApiError::refused(StatusCode::UNAUTHORIZED, message).into_response();
    // Not `Basic`: a browser would ask its user before the dashboard can.
    let challenge = HeaderValue::from_static("Bearer realm=\"Clairvoy\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn shown(headers: &HeaderMap) -> Option<String> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

/// The name by which the caller reached us is this machine's: a foreign name that resolves here is a trick.
fn is_local(request: &Request) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let Some(host) = host.or_else(|| request.uri().host()) else { return false };
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A request that changes something was not made by a page of another site.
fn is_same_site(request: &Request) -> bool {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return true;
    }
    let text = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => true,
        (Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, origin)| origin == host),
        (Some(_), None) => false,
    }
}
