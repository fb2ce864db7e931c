//! Just enough HTTP to ask a program on this machine how it is.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const PATIENCE: Duration = Duration::from_secs(5);

/// Gets a path from `HOST:PORT` and returns the body. A status other than 200 is an error.
pub(crate) fn get(authority: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // In version 1.0 the answer ends with the connection and comes in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_whitespace().nth(1) != Some("200") {
        bail!("it answers `{status}`");
    }
    Ok(body.to_owned())
}

/// Returns the whole number that follows `"key":` for the first time in a JSON text.
pub(crate) fn number(json: &str, key: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{key}\""))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_200_has_a_body() {
        assert_eq!(body("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        assert!(body("HTTP/1.0 503 Service Unavailable\r\n\r\n{}").unwrap_err().to_string().contains("503"));
        assert!(body("rubbish").is_err());
    }

    #[test]
    fn numbers_are_read_by_their_key() {
        let json = r#"{"totals":{"telemetry_rows": 12345,"forecasts":12}}"#;
        assert_eq!(number(json, "telemetry_rows"), Some(12345));
        assert_eq!(number(json, "forecasts"), Some(12));
        assert_eq!(number(json, "decisions"), None);
        assert_eq!(number(r#"{"forecasts":null}"#, "forecasts"), None);
    }
}
