use std::collections::BTreeSet;
use std::sync::Arc;

use axum::http::{HeaderMap, header};

use crate::api::Token;
use crate::config::is_named;

use super::shares::{Peer, Sender};

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

/// The pools that the certificate of a connection opens: an extension of its requests.
#[derive(Clone, Debug)]
pub(super) struct Certified {
    pools: Arc<BTreeSet<String>>,
    /// The place of its first known name among all clients.
    client: usize,
}

/// A sender that was let in, and what it may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) sender: Sender,
    pub(super) access: Access,
}

/// Who may send: the tokens, which are never printed, and the names in certificates.
#[derive(Clone, Debug, Default)]
pub struct PushSenders {
    tokens: Vec<(Token, Arc<BTreeSet<String>>)>,
    clients: Vec<(String, Vec<String>)>,
}

impl PushSenders {
    /// Adds a token and the pools that it may write to.
    pub fn add_token(&mut self, token: Token, pools: impl IntoIterator<Item = String>) {
        self.tokens.push((token, Arc::new(pools.into_iter().collect())));
    }

    /// Adds a name in certificates and the pools that its bearer may write to.
    pub fn add_client(&mut self, san: String, pools: impl IntoIterator<Item = String>) {
        self.clients.push((san, pools.into_iter().collect()));
    }

    /// What the names in a verified certificate open; none when none of them is known.
    pub(super) fn certified(&self, identities: &[String]) -> Option<Certified> {
        let named = || self.clients.iter().enumerate().filter(|(_, (san, _))| is_named(san, identities));
        let (client, _) = named().next()?;
        let pools: BTreeSet<String> = named().flat_map(|(_, (_, pools))| pools.iter().cloned()).collect();
        (!pools.is_empty()).then(|| Certified { pools: Arc::new(pools), client })
    }

    /// What a request may write to, by its token, its connection's certificate, or both; none when neither is known.
    pub(super) fn admit(
        &self,
        headers: &HeaderMap,
        certified: Option<&Certified>,
        peer: Peer,
    ) -> Option<Admitted> {
        if self.tokens.is_empty() && self.clients.is_empty() {
            return Some(Admitted { sender: Sender::Peer(peer), access: Access::All });
        }
        let (sender, pools) = match (self.of_token(headers), certified) {
            (None, None) => return None,
            (Some((token, pools)), None) => (Sender::Token(token), Arc::clone(pools)),
            (None, Some(Certified { pools, client })) => (Sender::Client(*client), Arc::clone(pools)),
            (Some((token, one)), Some(Certified { pools, .. })) => {
                (Sender::Token(token), Arc::new(&**one | &**pools))
            }
        };
        Some(Admitted { sender, access: Access::Pools(pools) })
    }

    /// Every token is compared, so the time taken does not tell which one is near.
    fn of_token(&self, headers: &HeaderMap) -> Option<(usize, &Arc<BTreeSet<String>>)> {
        let shown = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, shown) = shown.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut found = None;
        for (place, (token, pools)) in self.tokens.iter().enumerate() {
            if token.is(shown.trim()) {
                found = Some((place, pools));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PushSenders {
        fn access(&self, headers: &HeaderMap, certified: Option<&Certified>) -> Option<Access> {
            self.admit(headers, certified, Peer::none()).map(|admitted| admitted.access)
        }
    }

    #[test]
    fn a_token_opens_its_pools_only() {
        let mut tokens = PushSenders::default();
        let headers = |text: &str| HeaderMap::from_iter([(header::AUTHORIZATION, text.parse().unwrap())]);
        assert_eq!(tokens.access(&HeaderMap::new(), None), Some(Access::All), "none is asked for");
        tokens.add_token(Token::new("0123456789abcdef"), ["a".to_owned()]);
        tokens.add_token(Token::new("fedcba9876543210"), ["b".to_owned()]);
        assert_eq!(tokens.access(&HeaderMap::new(), None), None);
        for wrong in ["Bearer", "Bearer ", "Bearer 0123456789abcdee", "Basic 0123456789abcdef"] {
            assert_eq!(tokens.access(&headers(wrong), None), None, "{wrong}");
        }
        let access = tokens.access(&headers("bearer fedcba9876543210"), None).unwrap();
        assert!(access.covers("b") && !access.covers("a"));
        assert!(!format!("{tokens:?}").contains("fedcba"));
    }

    #[test]
    fn a_certificate_opens_the_pools_of_its_names_with_or_without_a_token() {
        let mut senders = PushSenders::default();
        senders.add_client("spiffe://example/a".to_owned(), ["a".to_owned()]);
        senders.add_client("b.example".to_owned(), ["b".to_owned()]);
        assert_eq!(senders.access(&HeaderMap::new(), None), None, "no certificate");
        assert!(senders.certified(&["c.example".to_owned()]).is_none());
        let certified = |names: &[&str]| {
            senders.certified(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        let access = senders.access(&HeaderMap::new(), Some(&certified(&["spiffe://example/a"]))).unwrap();
        assert!(access.covers("a") && !access.covers("b"));
        let both = certified(&["spiffe://example/a", "B.example"]);
        let access = senders.access(&HeaderMap::new(), Some(&both)).unwrap();
        assert!(access.covers("a") && access.covers("b"));

        let of_b = certified(&["b.example"]);
        senders.add_token(Token::new("0123456789abcdef"), ["c".to_owned()]);
        let token =
            HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap())]);
        let access = senders.access(&token, Some(&of_b)).unwrap();
        assert!(access.covers("b") && access.covers("c") && !access.covers("a"));
    }
}
