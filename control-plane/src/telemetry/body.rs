use std::io::Read;

use flate2::read::MultiGzDecoder;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use super::failure::ScrapeFailure;
use super::page::PageForm;

/// What an answer's headers say of its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BodyKind {
    /// What it is, once unpacked.
    pub(super) form: PageForm,
    pub(super) gzip: bool,
}

impl BodyKind {
    /// Takes plain text, OpenMetrics, delimited protobuf, JSON, and pages that do not say what they are.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ScrapeFailure> {
        let gzip = match header(headers, &CONTENT_ENCODING).as_str() {
            "" | "identity" => false,
            "gzip" | "x-gzip" => true,
            other => return Err(ScrapeFailure::Packed(shown(other))),
        };
        let full = header(headers, &CONTENT_TYPE);
        let kind = full.split(';').next().unwrap_or_default().trim();
        let form = match kind {
            "" | "text/plain" | "application/openmetrics-text" => PageForm::Text,
            "application/vnd.google.protobuf" if is_delimited(&full) => PageForm::Protobuf,
            "application/json" => PageForm::Json,
            _ => return Err(ScrapeFailure::NotText(shown(kind))),
        };
        Ok(Self { form, gzip })
    }
}

fn header(headers: &HeaderMap, name: &reqwest::header::HeaderName) -> String {
    let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    value.unwrap_or_default().trim().to_ascii_lowercase()
}

/// The text and the compact form of protobuf go by other encodings.
fn is_delimited(content_type: &str) -> bool {
    let mut parameters = content_type.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    parameters.all(|(name, value)| name.trim() != "encoding" || value.trim().trim_matches('"') == "delimited")
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Unpacks a gzip body of any number of members, up to `limit_bytes`.
pub(super) fn gunzip(packed: &[u8], limit_bytes: usize) -> Result<Vec<u8>, ScrapeFailure> {
    let mut page = Vec::with_capacity(packed.len().saturating_mul(4).min(limit_bytes));
    let most = u64::try_from(limit_bytes).unwrap_or(u64::MAX).saturating_add(1);
    let read = MultiGzDecoder::new(packed).take(most).read_to_end(&mut page);
    read.map_err(|error| ScrapeFailure::Broken(format!("gzip: {error}")))?;
    if page.len() > limit_bytes { Err(ScrapeFailure::TooLarge { limit_bytes }) } else { Ok(page) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use reqwest::header::HeaderValue;

    use super::*;

    fn kind(content_type: &str, encoding: &str) -> Result<BodyKind, ScrapeFailure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        headers.insert(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap());
        BodyKind::of(&headers)
    }

    fn gzip(page: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(page).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn headers_say_what_a_body_is() {
        let plain = |form| Ok(BodyKind { form, gzip: false });
        assert_eq!(BodyKind::of(&HeaderMap::new()), plain(PageForm::Text));
        assert_eq!(kind("text/plain; version=0.0.4", ""), plain(PageForm::Text));
        assert_eq!(
            kind("application/openmetrics-text; version=1.0.0; charset=utf-8", ""),
            plain(PageForm::Text)
        );
        let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=";
        assert_eq!(kind(&format!("{protobuf}delimited"), ""), plain(PageForm::Protobuf));
        assert_eq!(kind("application/json", "GZIP"), Ok(BodyKind { form: PageForm::Json, gzip: true }));
        let other = "application/vnd.google.protobuf".to_owned();
        assert_eq!(kind(&format!("{protobuf}compact-text"), ""), Err(ScrapeFailure::NotText(other)));
        assert_eq!(kind("text/html", ""), Err(ScrapeFailure::NotText("text/html".into())));
        assert_eq!(kind("text/plain", "br"), Err(ScrapeFailure::Packed("br".into())));
    }

    #[test]
    fn a_bomb_is_cut_off_at_the_limit() {
        let bomb = gzip(&vec![b'#'; 20 << 20]);
        assert!(bomb.len() < 200_000);
        assert_eq!(gunzip(&bomb, 1 << 20), Err(ScrapeFailure::TooLarge { limit_bytes: 1 << 20 }));
        let two = [gzip(b"up 1\n"), gzip(b"up 2\n")].concat();
        assert_eq!(gunzip(&two, 10), Ok(b"up 1\nup 2\n".to_vec()));
        assert!(matches!(gunzip(&two[..two.len() - 3], 100), Err(ScrapeFailure::Broken(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_refused(
            packed in proptest::collection::vec(any::<u8>(), 0..500),
            flip in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let _ = gunzip(&packed, 1000);
            let mut packed = gzip(&packed);
            let at = flip.index(packed.len());
            packed[at] = byte;
            if let Ok(page) = gunzip(&packed, 1000) {
                prop_assert!(page.len() <= 1000);
            }
        }
    }
}
