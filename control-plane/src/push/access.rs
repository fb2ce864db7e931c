use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderMap, header};

use crate::api::Token;

/// Which pools a sender may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// All that push.
    All,
    /// These.
    Pools(Arc<BTreeSet<String>>),
}

impl Access {
    pub(super) fn covers(&self, pool: &str) -> bool {
        match self {
            Self::All => true,
            Self::Pools(pools) => pools.contains(pool),
        }
    }
}

/// The tokens of all senders. Never printed.
#[derive(Clone, Debug, Default)]
pub struct PushTokens {
    tokens: Vec<(Token, Arc<BTreeSet<String>>)>,
}

impl PushTokens {
    /// Adds a token and the pools that it may write to.
    pub fn add(&mut self, token: Token, pools: impl IntoIterator<Item = String>) {
        self.tokens.push((token, Arc::new(pools.into_iter().collect())));
    }

    /// What the headers of a request allow; none when they show no token that is known. Every token is compared, so the
    /// time taken does not tell which one is near.
    pub(super) fn access(&self, headers: &HeaderMap) -> Option<Access> {
        if self.tokens.is_empty() {
            return Some(Access::All);
        }
        let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, shown) = shown.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut found = None;
        for (token, pools) in &self.tokens {
            if token.is(shown.trim()) {
                found = Some(Access::Pools(Arc::clone(pools)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_pools_only() {
        let mut tokens = PushTokens::default();
        let headers = |text: &str| HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
        assert_eq!(tokens.access(&HeaderMap::new()), Some(Access::All), "none is asked for");
        tokens.add(Token::new("0123456789abcdef"), ["a".to_owned()]);
        tokens.add(Token::new("fedcba9876543210"), ["b".to_owned()]);
        assert_eq!(tokens.access(&HeaderMap::new()), None);
        for wrong in ["Bearer", "Bearer ", "Bearer 0123456789abcdee", "Basic 0123456789abcdef"] {
            assert_eq!(tokens.access(&headers(wrong)), None, "{wrong}");
        }
        let access = tokens.access(&headers("bearer fedcba9876543210")).unwrap();
        assert!(access.covers("b") && !access.covers("a"));
        assert!(!format!("{tokens:?}").contains("fedcba"));
    }
}
