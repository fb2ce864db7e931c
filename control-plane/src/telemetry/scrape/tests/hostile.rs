//! Pages that no honest server shows: each is told with its reason, and counted.

use super::*;

/// Scrapes one server until an outcome is there; tells it, and Clairvoy's own page after it.
async fn scraped(
    kind: &'static str,
    packing: Option<&'static str>,
    page: Vec<u8>,
) -> (ScrapeOutcome, String) {
    let address = backend(move || {
        let mut answer = Response::new(Body::from(page.clone()));
        answer.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        if let Some(packing) = packing {
            answer.headers_mut().insert(header::CONTENT_ENCODING, packing.parse().unwrap());
        }
        answer
    })
    .await;
    let mut bench = Bench::of(&address);
    let outcome = bench.next().await;
    let mut own = String::new();
    encode(&mut own, &bench.registry).unwrap();
    (outcome, own)
}

#[tokio::test]
async fn each_is_told_and_counted() {
    let text = "text/plain; version=0.0.4";
    let series = |index: usize| format!("vllm:num_requests_waiting{{engine=\"{index}\"}} 1\n");
    let many: String = (0..200_000).map(series).collect();
    assert!(many.len() > OPTIONS.max_page_bytes);
    for (what, kind, packing, page, counted) in [
        ("many series", text, None, many.into_bytes(), "kind=\"too_large\""),
        ("a bomb", text, Some("gzip"), gzipped(&vec![b'#'; 64 << 20]), "kind=\"too_large\""),
        ("no gzip", text, Some("gzip"), b"hello".to_vec(), "kind=\"broken\""),
        ("another packing", text, Some("br"), b"hello".to_vec(), "kind=\"packed\""),
        ("another type", "text/html", None, b"<p>".to_vec(), "kind=\"not_text\""),
        ("nonsense", text, None, vec![0xff; 5000], "kind=\"no_known_metrics\""),
    ] {
        let (outcome, own) = scraped(kind, packing, page).await;
        assert!(outcome.result.is_err(), "{what}: {outcome:?}");
        let line = own
            .lines()
            .find(|line| line.starts_with("clairvoy_telemetry_failures_total") && line.contains(counted));
        assert!(line.is_some(), "{what}: {own}");
    }
    let label = "x".repeat(100_000);
    let page = format!(
        "vllm:num_requests_waiting NaN\nvllm:num_requests_running{{a=\"{label}\"}} 3\n\
         vllm:kv_cache_usage_perc 1e300\n"
    );
    let (outcome, own) = scraped(text, None, page.into_bytes()).await;
    let sample = outcome.result.unwrap();
    assert_eq!((sample.queue_depth, sample.running, sample.kv_used), (None, Some(3.0), None));
    for (field, reason) in [(Field::QueueDepth, "not_a_number"), (Field::KvUsed, "sentinel")] {
        let series =
            format!("clairvoy_telemetry_fields_dropped_total{{field=\"{field}\",reason=\"{reason}\"}}");
        assert!(own.contains(&series), "{series}: {own}");
    }
}
