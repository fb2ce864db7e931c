use std::io::Read as _;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;

/// A value as JSON, packed by gzip; none when it is nothing that JSON can hold.
pub(crate) fn packed(value: &impl Serialize) -> Option<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut packer, value).ok()?;
    packer.finish().ok()
}

/// The JSON text of [`packed`].
///
/// # Errors
/// Bytes that are not packed text.
pub(crate) fn unpacked(bytes: &[u8]) -> std::io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(bytes).read_to_string(&mut text)?;
    Ok(text)
}
