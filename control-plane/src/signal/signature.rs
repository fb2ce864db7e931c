use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use thiserror::Error;

/// How far a receiver lets `webhook-timestamp` be from its own clock, in seconds.
pub const TOLERANCE_SECONDS: i64 = 300;

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1,";

/// A shared secret of the Standard Webhooks scheme, 24 to 64 bytes; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a text is no secret; the text itself is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Not of the form that tells secrets from other strings.
    #[error("webhook secret does not begin with whsec_")]
    Prefix,
    /// What follows the prefix cannot be decoded.
    #[error("webhook secret is not base64 after whsec_")]
    Base64,
    /// Too short to be safe, or too long to be a secret of this scheme.
    #[error("webhook secret has {0} bytes, not 24 to 64")]
    Length(usize),
}

/// Why a signature was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignatureError {
    /// An old message sent again, or a clock that is wrong.
    #[error("webhook timestamp is {0} s away from now")]
    Stale(i64),
    /// None of the signatures in the header fits.
    #[error("no webhook signature fits")]
    Mismatch,
}

impl Secret {
    /// Reads `whsec_<base64>`.
    ///
    /// # Errors
    /// When the text has another form or the secret another length.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretError::Prefix)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| SecretError::Base64)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(SecretError::Length(bytes.len())) }
    }

    /// Returns the `webhook-signature` of a message: HMAC-SHA256 of `id.timestamp.body`, timestamp in Unix seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signature = self.mac(id, timestamp, body).finalize().into_bytes();
        format!("{VERSION}{}", STANDARD.encode(signature))
    }

    /// Checks a received message, as a receiver does: `header` may hold several signatures, parted by blanks, `now`
    /// is in Unix seconds. The comparison takes the same time wherever signatures differ.
    ///
    /// # Errors
    /// When the timestamp is too far from `now` or no signature fits.
    pub fn verify(
        &self,
        id: &str,
        timestamp: i64,
        body: &[u8],
        header: &str,
        now: i64,
    ) -> Result<(), SignatureError> {
        let age = now.saturating_sub(timestamp).saturating_abs();
        if age > TOLERANCE_SECONDS {
            return Err(SignatureError::Stale(age));
        }
        let mac = self.mac(id, timestamp, body);
        for signature in header.split_ascii_whitespace() {
            let Some(encoded) = signature.strip_prefix(VERSION) else { continue };
            let Ok(claimed) = STANDARD.decode(encoded) else { continue };
            if mac.clone().verify_slice(&claimed).is_ok() {
                return Ok(());
            }
        }
        Err(SignatureError::Mismatch)
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    fn mac(&self, id: &str, timestamp: i64, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const LONG: &str =
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";

    /// Secret, id, timestamp, body, and the signature that Python's `hmac` module gives.
    const VECTORS: [(&str, &str, i64, &str, &str); 3] = [
        (SECRET, "018f-a", 1_700_000_000, r#"{"a":1}"#, "v1,ReiYS6pWSVIyv8MK14bRVKJ6vbhGJHprWAGNRG40udc="),
        (
            "whsec_////////////////////////////////",
            "id-2",
            1,
            "",
            "v1,c1epqSmHhCVwbwRA59vPYBkqYpNDVisK/BVSrhc5KZw=",
        ),
        (LONG, "pläne", 1_999_999_999, "größe ✓\n", "v1,6sGrg8Zr/AC6xLo9MfS9Vrx60tbM7M8okbB9Tq32rbM="),
    ];

    #[test]
    fn signatures_are_those_of_another_implementation() {
        for (secret, id, timestamp, body, expected) in VECTORS {
            let secret = Secret::parse(secret).unwrap();
            assert_eq!(secret.sign(id, timestamp, body.as_bytes()), expected);
            assert_eq!(secret.verify(id, timestamp, body.as_bytes(), expected, timestamp + 5), Ok(()));
        }
    }

    #[test]
    fn only_the_same_message_of_the_same_time_is_accepted() {
        let secret = Secret::parse(SECRET).unwrap();
        let header = secret.sign("id", 1000, b"body");
        let refused = Err(SignatureError::Mismatch);
        assert_eq!(secret.verify("id", 1000, b"bodY", &header, 1000), refused);
        assert_eq!(secret.verify("di", 1000, b"body", &header, 1000), refused);
        assert_eq!(secret.verify("id", 1001, b"body", &header, 1000), refused);
        assert_eq!(secret.verify("id", 1000, b"body", "", 1000), refused);
        assert_eq!(secret.verify("id", 1000, b"body", &header.replace("v1,", "v1a,"), 1000), refused);
        assert_eq!(Secret::parse(LONG).unwrap().verify("id", 1000, b"body", &header, 1000), refused);
        assert_eq!(secret.verify("id", 1000, b"body", &header, 1301), Err(SignatureError::Stale(301)));
        let rotated = format!("v1,AAAA v1,*** {header}");
        assert_eq!(secret.verify("id", 1000, b"body", &rotated, 1300), Ok(()));
    }

    #[test]
    fn secrets_are_checked_and_never_shown() {
        assert_eq!(Secret::parse("AAECAwQF"), Err(SecretError::Prefix));
        assert_eq!(Secret::parse("whsec_!"), Err(SecretError::Base64));
        assert_eq!(Secret::parse("whsec_AAECAwQF"), Err(SecretError::Length(6)));
        assert_eq!(format!("{:?}", Secret::parse(SECRET)), "Ok(Secret(hidden))");
    }
}
