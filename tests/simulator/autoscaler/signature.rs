//! Standard Webhooks 1.0 signatures (symmetric, HMAC-SHA256).

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// How far the time of a webhook may be from now, in either direction.
pub const MAX_AGE_SECONDS: i64 = 300;

/// The key that both sides know.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Makes a secret of 32 random bytes.
    pub fn random() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// Reads the written form, `whsec_<base64>`.
    ///
    /// # Errors
    ///
    /// When the prefix is missing, the rest is not Base64, or the key is shorter than 24 bytes.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let encoded = text.strip_prefix("whsec_");
        let encoded = encoded.ok_or_else(|| anyhow::anyhow!("a webhook secret begins with whsec_"))?;
        let bytes = BASE64_STANDARD.decode(encoded)?;
        anyhow::ensure!(bytes.len() >= 24, "a webhook secret of {} bytes is too short", bytes.len());
        Ok(Self(bytes))
    }

    /// The written form, to be given to the sender.
    pub fn reveal(&self) -> String {
        format!("whsec_{}", BASE64_STANDARD.encode(&self.0))
    }

    /// The signature of one webhook, `v1,<base64>`.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        format!("v1,{}", BASE64_STANDARD.encode(self.mac(id, timestamp, body).finalize().into_bytes()))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The three headers of a signed webhook, as they came.
#[derive(Debug, Clone, Copy)]
pub struct SignedHeaders<'a> {
    /// `webhook-id`: the same on every attempt.
    pub id: &'a str,
    /// `webhook-timestamp`: Unix seconds of this attempt.
    pub timestamp: &'a str,
    /// `webhook-signature`: signatures separated by spaces.
    pub signature: &'a str,
}

/// Why a webhook is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// One of the three headers is missing or unreadable.
    #[error("a signature header is missing or unreadable")]
    Header,
    /// The timestamp is too old or too far ahead.
    #[error("the timestamp is {0} s away from now")]
    Stale(i64),
    /// No signature matches.
    #[error("no signature matches")]
    Forged,
}

/// Checks that `body` was signed with `secret`, at a time near `now_unix_s`. Takes the same time for every wrong signature.
///
/// # Errors
///
/// The reason not to believe it. The signature is checked first, so that only the holder of the secret
/// learns about the clock.
pub fn verify(
    secret: &Secret,
    headers: SignedHeaders<'_>,
    body: &[u8],
    now_unix_s: i64,
) -> Result<(), Refusal> {
    let timestamp: i64 = headers.timestamp.parse().map_err(|_| Refusal::Header)?;
    let mac = secret.mac(headers.id, headers.timestamp, body);
    let matches = headers
        .signature
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|encoded| BASE64_STANDARD.decode(encoded).ok())
        .any(|bytes| mac.clone().verify_slice(&bytes).is_ok());
    if !matches {
        return Err(Refusal::Forged);
    }
    let age = now_unix_s.saturating_sub(timestamp);
    if age.saturating_abs() > MAX_AGE_SECONDS {
        return Err(Refusal::Stale(age));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn check(secret: &Secret, signature: &str, timestamp: i64, body: &[u8]) -> Result<(), Refusal> {
        let timestamp = timestamp.to_string();
        verify(secret, SignedHeaders { id: "evt_1", timestamp: &timestamp, signature }, body, NOW)
    }

    #[test]
    fn agrees_with_the_vector_of_the_standard() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_right_signature_among_others_is_believed() {
        let secret = Secret::random();
        let signature = secret.sign("evt_1", &NOW.to_string(), b"{}");
        assert_eq!(check(&secret, &format!("v1,AAAA v2,zzz {signature}"), NOW, b"{}"), Ok(()));
    }

    #[test]
    fn a_forged_or_changed_webhook_is_not() {
        let secret = Secret::random();
        let signature = secret.sign("evt_1", &NOW.to_string(), b"{}");
        let forged = Secret::random().sign("evt_1", &NOW.to_string(), b"{}");
        assert_eq!(check(&secret, &forged, NOW, b"{}"), Err(Refusal::Forged));
        assert_eq!(check(&secret, &signature, NOW, b"{ }"), Err(Refusal::Forged));
        assert_eq!(check(&secret, &signature, NOW + 1, b"{}"), Err(Refusal::Forged));
        assert_eq!(check(&secret, "", NOW, b"{}"), Err(Refusal::Forged));
    }

    #[test]
    fn a_stale_webhook_is_not_believed() {
        let secret = Secret::random();
        for (time, believed) in [(NOW - 300, true), (NOW - 301, false), (NOW + 301, false)] {
            let signature = secret.sign("evt_1", &time.to_string(), b"{}");
            let result = check(&secret, &signature, time, b"{}");
            assert_eq!(result, if believed { Ok(()) } else { Err(Refusal::Stale(NOW - time)) });
        }
    }

    #[test]
    fn the_written_secret_reads_back_and_is_not_logged() {
        let secret = Secret::random();
        assert_eq!(Secret::parse(&secret.reveal()).unwrap().0, secret.0);
        assert_eq!(format!("{secret:?}"), "Secret(hidden)");
        assert!(Secret::parse("whsec_c2hvcnQ=").is_err());
    }
}
