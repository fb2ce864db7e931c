//! Plain JSON, for shell scripts: one object per backend, or a list of them.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::telemetry::{Alias, AliasPack, Field, Timing};

use super::batch::PointValue;
use super::collector::{Collector, Shape};
use super::names::Known;
use super::refusal::RequestRefusal;

/// The fields of plain JSON, as series under which they are held.
pub(super) const CANONICAL: AliasPack = AliasPack {
    name: "json",
    aliases: &[
        Alias::value("clairvoy:queue_depth", Field::QueueDepth),
        Alias::value("clairvoy:running", Field::Running),
        Alias::value("clairvoy:kv_used", Field::KvUsed),
        Alias::value("clairvoy:gpu_utilisation", Field::GpuUtilisation),
        Alias::histogram("clairvoy:ttft_seconds", Timing::Ttft),
        Alias::histogram("clairvoy:inter_token_seconds", Timing::InterToken),
        Alias::counter("clairvoy:completed", Field::Completed),
        Alias::counter("clairvoy:prompt_tokens", Field::PromptTokens),
        Alias::counter("clairvoy:output_tokens", Field::OutputTokens),
    ],
    promises: &[],
};

/// What one backend shows. Those that end in `_sum_seconds` or `_count`, and the last three, run since its start.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report<'a> {
    #[serde(borrow)]
    backend: Cow<'a, str>,
    #[serde(default)]
    at: Option<Time>,
    queue_depth: Option<f64>,
    running: Option<f64>,
    kv_used: Option<f64>,
    gpu_utilisation: Option<f64>,
    ttft_sum_seconds: Option<f64>,
    ttft_count: Option<f64>,
    inter_token_sum_seconds: Option<f64>,
    inter_token_count: Option<f64>,
    completed: Option<f64>,
    prompt_tokens: Option<f64>,
    output_tokens: Option<f64>,
}

/// When: RFC 3339, or seconds since 1970 as `date +%s` prints them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Written(DateTime<Utc>),
    Seconds(f64),
}

impl Time {
    fn milliseconds(&self) -> i64 {
        match self {
            Self::Written(at) => at.timestamp_millis(),
            Self::Seconds(seconds) => (seconds * 1000.0) as i64,
        }
    }
}

impl Report<'_> {
    fn values(&self) -> impl Iterator<Item = (Known<'static>, f64)> {
        let gauge = |series| Known { series, counts: false, factor: 1.0 };
        let counter = |series| Known { series, counts: true, factor: 1.0 };
        let all = [
            (gauge("clairvoy:queue_depth"), self.queue_depth),
            (gauge("clairvoy:running"), self.running),
            (gauge("clairvoy:kv_used"), self.kv_used),
            (gauge("clairvoy:gpu_utilisation"), self.gpu_utilisation),
            (counter("clairvoy:ttft_seconds_sum"), self.ttft_sum_seconds),
            (counter("clairvoy:ttft_seconds_count"), self.ttft_count),
            (counter("clairvoy:inter_token_seconds_sum"), self.inter_token_sum_seconds),
            (counter("clairvoy:inter_token_seconds_count"), self.inter_token_count),
            (counter("clairvoy:completed"), self.completed),
            (counter("clairvoy:prompt_tokens"), self.prompt_tokens),
            (counter("clairvoy:output_tokens"), self.output_tokens),
        ];
        all.into_iter().filter_map(|(known, value)| Some((known, value?)))
    }
}

/// Reads a body.
pub(super) fn decode(body: &[u8], collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        let report: Report<'_> = serde_json::from_slice(body).map_err(malformed)?;
        return take(&report, collector);
    }
    let text = std::str::from_utf8(body).map_err(|error| RequestRefusal::Malformed(error.to_string()))?;
    let mut refusal = None;
    each(text, |piece| {
        let taken =
            serde_json::from_str(piece).map_err(malformed).and_then(|report| take(&report, collector));
        taken.map_err(|error| refusal = Some(error)).is_ok()
    })
    .map_err(malformed)?;
    refusal.map_or(Ok(()), Err)
}

fn malformed(error: serde_json::Error) -> RequestRefusal {
    RequestRefusal::Malformed(error.to_string())
}

fn take(report: &Report<'_>, collector: &mut Collector<'_>) -> Result<(), RequestRefusal> {
    let points = report.values().count();
    let member = match collector.find_named(&report.backend) {
        Ok(member) => member,
        Err(refusal) => {
            let shown: String = report.backend.chars().take(100).collect();
            return collector.refuse(points.max(1), refusal, || format!("backend {shown:?}"));
        }
    };
    let at_ms = report.at.as_ref().map_or_else(|| collector.now_ms(), |at| at.milliseconds().max(1));
    for (known, value) in report.values() {
        let text = match collector.series(known, &mut []) {
            Ok(text) => text,
            Err(refusal) => {
                collector.refuse(1, refusal, || known.series.to_owned())?;
                continue;
            }
        };
        collector.add(member, text, at_ms, Shape::of(known), PointValue::Number(value))?;
    }
    Ok(())
}

/// Calls `visit` with the text of each element of a JSON list, one by one, until it returns false. So memory does not grow
/// with their number.
pub(super) fn each(list: &str, visit: impl FnMut(&str) -> bool) -> Result<(), serde_json::Error> {
    struct Elements<F>(F);
    impl<'de, F: FnMut(&str) -> bool> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element::<&RawValue>()? {
                if !(self.0)(element.get()) {
                    while list.next_element::<de::IgnoredAny>()?.is_some() {}
                    break;
                }
            }
            Ok(())
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    }
    let mut reader = serde_json::Deserializer::from_str(list);
    reader.deserialize_any(Elements(visit))?;
    reader.end()
}
