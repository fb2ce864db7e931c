use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use clairvoy::store::PageRow;
use uuid::Uuid;

use crate::server::Server;

/// Pages that are written; one is a second.
const PAGES: i64 = 300;
const BACKENDS: usize = 1000;

/// Bytes that a page of recorded inputs takes, of a second in which [`BACKENDS`] backends are scraped.
pub(crate) async fn page_bytes(server: &Server, begin: DateTime<Utc>) -> Result<f64> {
    let run = Uuid::now_v7();
    for sequence in 1..=PAGES {
        let since = begin + TimeDelta::seconds(sequence);
        let page = page(since, sequence);
        server.store.put_page(&PageRow { run, sequence, at: since + TimeDelta::seconds(1), page }).await?;
    }
    let (bytes, rows) = server.size("input_page").await?;
    Ok(bytes / rows)
}

/// The page as the recorder writes it: names of backends, and of each sample its backend, its time and when it was taken
/// in, in microseconds.
fn page(since: DateTime<Utc>, sequence: i64) -> String {
    let backends: Vec<String> =
        (0..BACKENDS).map(|backend| format!("10.{}.{}.{}:8000", backend / 256, backend % 256, 11)).collect();
    let marks: Vec<_> = (0..BACKENDS as i64)
        .map(|backend| {
            let at = backend * 1_000 + (backend * 7_919 + sequence * 104_729) % 997;
            serde_json::json!({ "s": [backend, at, at + 1_500 + (at * 31) % 4_001] })
        })
        .collect();
    serde_json::json!({ "since": since, "backends": backends, "marks": marks }).to_string()
}
