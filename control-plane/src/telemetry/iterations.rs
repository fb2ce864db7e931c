//! The JSON page of `trtllm-serve`: an array with one object for each iteration since the page was read before.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::drops::DropReason;
use super::field::Field;
use super::lookup::Packs;
use super::page::PageReading;
use super::reading::EngineReading;

/// One iteration; all fields may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Iteration {
    num_active_requests: Option<f64>,
    num_queued_requests: Option<f64>,
    num_completed_requests: Option<f64>,
    num_new_active_requests: Option<f64>,
    #[serde(rename = "newActiveRequestsQueueLatencyMS")]
    queue_latency_ms: Option<f64>,
    max_num_active_requests: Option<f64>,
    max_batch_size_runtime: Option<f64>,
    max_num_tokens_runtime: Option<f64>,
    kv_cache_stats: Option<KvCache>,
    inflight_batching_stats: Option<Inflight>,
    /// The rank under attention data parallelism; ranks are interleaved.
    attention_dp_rank: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KvCache {
    max_num_blocks: Option<f64>,
    used_num_blocks: Option<f64>,
    tokens_per_block: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Inflight {
    num_ctx_tokens: Option<f64>,
    num_gen_requests: Option<f64>,
}

/// Most data-parallel ranks that are told apart.
const MOST_RANKS: usize = 256;

/// Reads the array.
///
/// Gauges are those of the newest iteration of each rank; counters tell what came since the page was read before.
/// An empty array says that no step was made since: nothing runs and nothing waits.
pub(super) fn read(page: &[u8], packs: &Packs) -> PageReading {
    let mut result = PageReading { increments: true, ..PageReading::default() };
    let folded =
        Deserializer::deserialize_seq(&mut serde_json::Deserializer::from_slice(page), Fold::default());
    let Ok(Fold { newest, counted: mut result }) = folded else {
        result.tally.bad_lines = 1;
        return result;
    };
    result.increments = true;
    result.engine = Some(super::packs::TRTLLM.name);
    if newest.is_empty() {
        // Only the emptiness says what page this is: it is no sign of this engine where others are thought of.
        result.is_idle = packs.packs.iter().all(|pack| pack.always || pack.name == super::packs::TRTLLM.name);
        for field in [Field::QueueDepth, Field::Running, Field::Completed, Field::Iterations] {
            result.reading.set(field, 0.0);
            result.present.insert(field);
        }
    }
    for iteration in &newest {
        gauges(iteration, &mut result);
    }
    result.reading.complete();
    result
}

/// Takes the iterations one by one, as an array may have very many.
#[derive(Default)]
struct Fold {
    /// The newest of each rank.
    newest: Vec<Iteration>,
    counted: PageReading,
}

impl<'de> Visitor<'de> for Fold {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of iterations")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut sequence: A) -> Result<Self, A::Error> {
        while let Some(iteration) = sequence.next_element::<Iteration>()? {
            self.counted.tally.samples += 1;
            counters(&iteration, &mut self.counted);
            let rank = iteration.attention_dp_rank;
            match self.newest.iter().position(|held| held.attention_dp_rank == rank) {
                Some(at) => self.newest[at] = iteration,
                None if self.newest.len() < MOST_RANKS => self.newest.push(iteration),
                None => {}
            }
        }
        Ok(self)
    }
}

fn gauges(iteration: &Iteration, result: &mut PageReading) {
    let kv = iteration.kv_cache_stats.as_ref();
    add(result, Field::QueueDepth, iteration.num_queued_requests);
    add(result, Field::Running, iteration.num_active_requests);
    add(result, Field::KvTokensUsed, kv.and_then(|kv| kv.used_num_blocks));
    add(result, Field::KvTokens, kv.and_then(|kv| kv.max_num_blocks));
    add(result, Field::Blocks, kv.and_then(|kv| kv.max_num_blocks));
    add(result, Field::MaxRunning, iteration.max_batch_size_runtime.or(iteration.max_num_active_requests));
    add(result, Field::TokenBudget, iteration.max_num_tokens_runtime);
    if let Some((used, all)) = kv.and_then(|kv| Some((kv.used_num_blocks?, kv.max_num_blocks?)))
        && let Ok(part) = Field::KvUsed.believe(used / all)
    {
        let fullest = result.reading.kv_used_max.map_or(part, |held: f64| held.max(part));
        result.reading.kv_used_max = Some(fullest);
    }
    if let Some(size) = kv.and_then(|kv| kv.tokens_per_block) {
        result.reading.clear(Field::BlockSize);
        add(result, Field::BlockSize, Some(size));
    }
}

fn counters(iteration: &Iteration, result: &mut PageReading) {
    add(result, Field::Iterations, Some(1.0));
    add(result, Field::Completed, iteration.num_completed_requests);
    let wait = iteration.queue_latency_ms.filter(|_| iteration.num_new_active_requests.is_some());
    add(result, Field::QueueWaitSum, wait.map(|milliseconds| milliseconds / 1000.0));
    add(result, Field::QueueWaitCount, iteration.num_new_active_requests.filter(|_| wait.is_some()));
    if let Some(inflight) = &iteration.inflight_batching_stats {
        let context = inflight.num_ctx_tokens;
        // Each generating request makes one token in a step, or more with speculation, of which nothing is told here.
        let generated = inflight.num_gen_requests;
        add(result, Field::PromptTokens, context);
        add(result, Field::OutputTokens, generated);
        if context.is_some() || generated.is_some() {
            let tokens = context.unwrap_or(0.0) + generated.unwrap_or(0.0);
            add(result, Field::IterationTokens, Some(tokens));
        }
    }
}

/// Adds a value to a field, if it is believed.
fn add(result: &mut PageReading, field: Field, value: Option<f64>) {
    let Some(value) = value else { return };
    result.present.insert(field);
    result.known_series += 1;
    let PageReading { reading, drops, .. } = result;
    let sum = |value: f64, reading: &EngineReading| reading.get(field).unwrap_or(0.0) + value;
    match field.believe(value).and_then(|value| field.believe(sum(value, reading))) {
        Ok(sum) => reading.set(field, sum),
        Err(reason) => {
            drops.add(field, if reason == DropReason::Sentinel { DropReason::TooLarge } else { reason })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;

    fn page(text: &str) -> PageReading {
        read(text.as_bytes(), &Packs::all())
    }

    #[test]
    fn iterations_add_up_and_the_newest_tells_the_state() {
        let read = page(
            r#"[{"iter": 7, "numActiveRequests": 9, "numQueuedRequests": 4, "numCompletedRequests": 1,
                 "inflightBatchingStats": {"numCtxTokens": 100, "numGenRequests": 8}},
                {"iter": 8, "numActiveRequests": 12, "numQueuedRequests": 3, "numCompletedRequests": 2,
                 "numNewActiveRequests": 2, "newActiveRequestsQueueLatencyMS": 500.0, "maxNumActiveRequests": 64,
                 "kvCacheStats": {"maxNumBlocks": 1000, "usedNumBlocks": 400, "tokensPerBlock": 32},
                 "inflightBatchingStats": {"numCtxTokens": 0, "numGenRequests": 12}}]"#,
        );
        let reading = &read.reading;
        let told = |field| reading.get(field).unwrap();
        assert_eq!((told(Field::Running), told(Field::QueueDepth), told(Field::KvUsed)), (12.0, 3.0, 0.4));
        assert_eq!((told(Field::Completed), told(Field::Iterations)), (3.0, 2.0));
        assert_eq!((told(Field::IterationTokens), told(Field::OutputTokens)), (120.0, 20.0));
        assert_eq!((told(Field::QueueWaitSum), told(Field::QueueWaitCount)), (0.5, 2.0));
        assert_eq!(
            (told(Field::MaxRunning), told(Field::BlockSize), told(Field::Blocks)),
            (64.0, 32.0, 1000.0)
        );
        assert!(read.increments && read.known_series > 0);
    }

    #[test]
    fn ranks_are_summed_and_the_fullest_is_told() {
        let rank = |rank: u32, active: u32, used: u32| {
            format!(
                r#"{{"attentionDpRank": {rank}, "numActiveRequests": {active}, "numQueuedRequests": 0,
                    "kvCacheStats": {{"maxNumBlocks": 10, "usedNumBlocks": {used}, "tokensPerBlock": 32}}}}"#
            )
        };
        let read = page(&format!("[{},{},{}]", rank(0, 9, 9), rank(1, 2, 8), rank(0, 3, 2)));
        assert_eq!(read.reading.get(Field::Running), Some(5.0));
        assert_eq!(read.reading.get(Field::KvUsed), Some(0.5));
        assert_eq!((read.reading.kv_used_max, read.reading.get(Field::BlockSize)), (Some(0.8), Some(32.0)));
    }

    #[test]
    fn very_many_iterations_are_folded() {
        let read = page(&format!("[{}{{}}]", "{\"numCompletedRequests\":1},".repeat(100_000)));
        assert_eq!(read.reading.get(Field::Completed), Some(100_000.0));
    }

    #[test]
    fn an_empty_array_is_an_idle_engine_and_other_json_is_none() {
        let idle = |packs: &Packs| read(b"[]", packs).is_idle;
        assert!(idle(&Packs::of(&[&super::super::packs::TRTLLM])) && !idle(&Packs::all()));
        assert_eq!(page("[]").reading.get(Field::Running), Some(0.0));
        for text in ["{}", "[1]", "nonsense", "[{\"numActiveRequests\": \"x\"}]", ""] {
            let read = page(text);
            assert_eq!((read.known_series, read.tally.bad_lines), (0, 1), "{text}");
        }
        let read = page(r#"[{"numActiveRequests": -1, "numQueuedRequests": 1e300}]"#);
        assert_eq!((read.reading.get(Field::Running), read.reading.get(Field::QueueDepth)), (None, None));
        assert_eq!(read.drops.iter().count(), 2);
    }

    /// Any JSON, in which the names that are read are frequent.
    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<f64>().prop_map(|value| serde_json::Number::from_f64(value).map_or(Json::Null, Json::from)),
            any::<i64>().prop_map(Json::from),
            ".{0,8}".prop_map(Json::from),
        ];
        let key = prop_oneof![
            Just("numActiveRequests".to_owned()),
            Just("numQueuedRequests".to_owned()),
            Just("numCompletedRequests".to_owned()),
            Just("kvCacheStats".to_owned()),
            Just("maxNumBlocks".to_owned()),
            Just("usedNumBlocks".to_owned()),
            Just("inflightBatchingStats".to_owned()),
            Just("attentionDpRank".to_owned()),
            ".{0,6}",
        ];
        leaf.prop_recursive(4, 60, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
                proptest::collection::vec((key.clone(), inner), 0..6)
                    .prop_map(|pairs| Json::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(crate::fuzz::cases())]

        #[test]
        fn any_json_is_read_and_gives_nothing_that_cannot_be(
            pages in proptest::collection::vec(any_json(), 1..4), cut in any::<proptest::sample::Index>(),
        ) {
            for text in [Json::from(pages.clone()).to_string(), pages[0].to_string()] {
                for bytes in [text.as_bytes(), &text.as_bytes()[..cut.index(text.len() + 1)]] {
                    let read = read(bytes, &Packs::all());
                    for field in Field::ALL {
                        let value = read.reading.get(field);
                        prop_assert!(value.is_none_or(|value| value >= 0.0 && value.is_finite()), "{field}");
                    }
                    prop_assert!(read.tally.bad_lines <= 1);
                }
            }
        }

        #[test]
        fn iterations_are_read_as_they_were_written(
            steps in proptest::collection::vec((0_u32..500, 0_u32..500, 0_u32..50, 0_u32..999), 1..20),
        ) {
            let write = |(active, queued, done, used): &(u32, u32, u32, u32)| {
                serde_json::json!({
                    "numActiveRequests": active, "numQueuedRequests": queued, "numCompletedRequests": done,
                    "kvCacheStats": {"maxNumBlocks": 1000, "usedNumBlocks": used, "tokensPerBlock": 32},
                })
            };
            let read = page(&Json::from(steps.iter().map(write).collect::<Vec<_>>()).to_string());
            let (active, queued, _, used) = steps[steps.len() - 1];
            let done: u32 = steps.iter().map(|step| step.2).sum();
            let told = |field| read.reading.get(field).unwrap();
            prop_assert_eq!(told(Field::Running), f64::from(active));
            prop_assert_eq!(told(Field::QueueDepth), f64::from(queued));
            prop_assert_eq!(told(Field::Completed), f64::from(done));
            prop_assert_eq!(told(Field::KvUsed), f64::from(used) / 1000.0);
            prop_assert_eq!(told(Field::Iterations), steps.len() as f64);
        }
    }
}
