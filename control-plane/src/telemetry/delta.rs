use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::drops::{DropReason, Drops};
use super::field::{Field, Kind};
use super::histogram::Buckets;
use super::reading::EngineReading;
use super::sample::Sample;

/// Longest mean time to or between tokens that is believed, in seconds: more than a day.
const LONGEST_MEAN_SECONDS: f64 = 1e5;

/// A sample made of two readings, and what was noticed on the way.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The canonical sample.
    pub sample: Sample,
    /// A counter went backwards: the engine restarted since the previous reading.
    pub restarted: bool,
    /// Means that were not believed.
    pub drops: Drops,
}

/// Turns the newest reading of a backend into a sample.
///
/// `previous` is the last reading that succeeded, with the time from then to now on a clock that never jumps: after
/// missed scrapes the interval is simply longer and no request is lost. With no previous reading, or after a
/// restart, the interval is 0 and so are all counts. A counter that is missing on either side counts 0.
pub fn difference(
    backend: Arc<str>,
    at: DateTime<Utc>,
    previous: Option<(&EngineReading, Duration)>,
    current: &EngineReading,
) -> Difference {
    let mut drops = Drops::default();
    let mut sample = gauges(backend, at, current);
    let Some((previous, elapsed)) = previous.filter(|(_, elapsed)| !elapsed.is_zero()) else {
        return Difference { sample, restarted: false, drops };
    };
    if went_backwards(previous, current) {
        return Difference { sample, restarted: true, drops };
    }
    let grown = |field| growth(previous, current, field).unwrap_or(0.0).max(0.0);
    sample.interval_seconds = elapsed.as_secs_f64();
    sample.completed = grown(Field::Completed);
    sample.prompt_tokens = grown(Field::PromptTokens);
    sample.output_tokens = grown(Field::OutputTokens);
    sample.ttft_count = grown(Field::TtftCount);
    sample.iterations = grown(Field::Iterations);
    sample.iteration_tokens = grown(Field::IterationTokens);
    sample.preempted = grown(Field::Preempted);
    sample.arrived = (sample.completed + in_flight_growth(previous, current)).max(0.0);

    let mut mean = |sum, count| {
        let grown = growth(previous, current, count).unwrap_or(0.0);
        mean(growth(previous, current, sum), grown, sum, &mut drops)
    };
    sample.ttft_seconds = mean(Field::TtftSum, Field::TtftCount);
    sample.inter_token_seconds = mean(Field::InterTokenSum, Field::InterTokenCount);
    sample.queue_wait_seconds = mean(Field::QueueWaitSum, Field::QueueWaitCount);

    let ttft = since(&previous.ttft_buckets, &current.ttft_buckets);
    let ttft = |quantile| ttft.as_ref()?.quantile(quantile, sample.ttft_count);
    sample.ttft_p50_seconds = ttft(0.5);
    sample.ttft_p95_seconds = ttft(0.95);
    let gaps = since(&previous.inter_token_buckets, &current.inter_token_buckets);
    sample.inter_token_p95_seconds = gaps.and_then(|gaps| gaps.quantile(0.95, grown(Field::InterTokenCount)));
    Difference { sample, restarted: false, drops }
}

fn gauges(backend: Arc<str>, at: DateTime<Utc>, reading: &EngineReading) -> Sample {
    Sample {
        at,
        backend,
        queue_depth: reading.get(Field::QueueDepth),
        running: reading.get(Field::Running),
        kv_used: reading.get(Field::KvUsed),
        kv_used_max: reading.kv_used_max,
        gpu_utilisation: reading.get(Field::GpuUtilisation),
        simulated: reading.simulated,
        ..Sample::default()
    }
}

fn went_backwards(previous: &EngineReading, current: &EngineReading) -> bool {
    Field::ALL
        .into_iter()
        .filter(|field| field.kind() == Kind::Counter)
        .any(|field| growth(previous, current, field).is_some_and(|growth| growth < 0.0))
}

/// What was observed between two readings of a histogram; a first reading that has none hides what came before it.
fn since(previous: &Option<Buckets>, current: &Option<Buckets>) -> Option<Buckets> {
    current.as_ref()?.since(previous.as_ref()?)
}

fn growth(previous: &EngineReading, current: &EngineReading, field: Field) -> Option<f64> {
    Some(current.get(field)? - previous.get(field)?)
}

/// Growth of `running + queue_depth`; a gauge that is missing on either side is taken as unchanged.
fn in_flight_growth(previous: &EngineReading, current: &EngineReading) -> f64 {
    growth(previous, current, Field::Running).unwrap_or(0.0)
        + growth(previous, current, Field::QueueDepth).unwrap_or(0.0)
}

fn mean(sum: Option<f64>, count: f64, field: Field, drops: &mut Drops) -> Option<f64> {
    if count <= 0.0 {
        return None;
    }
    let mean = sum? / count;
    let reason = if mean < 0.0 {
        DropReason::Negative
    } else if mean > LONGEST_MEAN_SECONDS {
        DropReason::TooLarge
    } else {
        return Some(mean);
    };
    drops.add(field, reason);
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reading(completed: f64, running: f64, queue: f64) -> EngineReading {
        let mut reading = EngineReading::default();
        for (field, value) in [
            (Field::Completed, completed),
            (Field::Running, running),
            (Field::QueueDepth, queue),
            (Field::TtftCount, completed),
            (Field::TtftSum, completed * 0.5),
            (Field::InterTokenCount, completed * 10.0),
            (Field::InterTokenSum, completed * 0.2),
            (Field::QueueWaitCount, completed),
            (Field::QueueWaitSum, completed * 0.1),
            (Field::PromptTokens, completed * 100.0),
            (Field::OutputTokens, completed * 11.0),
            (Field::Iterations, completed * 2.0),
            (Field::IterationTokens, completed * 111.0),
            (Field::Preempted, 0.0),
        ] {
            reading.set(field, value);
        }
        let edges = [(0.25, completed / 2.0), (1.0, completed), (f64::INFINITY, completed)];
        reading.ttft_buckets = Some(Buckets::new(edges));
        reading.inter_token_buckets = Some(Buckets::new([(0.1, completed * 10.0)]));
        reading
    }

    fn between(previous: Option<(&EngineReading, Duration)>, current: &EngineReading) -> Difference {
        difference("127.0.0.1:9001".into(), DateTime::UNIX_EPOCH, previous, current)
    }

    #[test]
    fn the_first_reading_has_gauges_only() {
        let sample = between(None, &reading(100.0, 4.0, 2.0)).sample;
        assert_eq!((sample.running, sample.queue_depth), (Some(4.0), Some(2.0)));
        assert_eq!((sample.interval_seconds, sample.arrived, sample.completed), (0.0, 0.0, 0.0));
        assert_eq!(sample.ttft_seconds, None);
    }

    #[test]
    fn counts_and_means_cover_the_interval() {
        let Difference { sample, restarted, drops } =
            between(Some((&reading(100.0, 4.0, 2.0), SECOND)), &reading(110.0, 6.0, 3.0));
        assert!(!restarted && drops.is_empty());
        assert_eq!(sample.interval_seconds, 1.0);
        assert_eq!((sample.completed, sample.arrived), (10.0, 13.0));
        assert_eq!((sample.prompt_tokens, sample.output_tokens), (1000.0, 110.0));
        assert_eq!((sample.ttft_seconds, sample.ttft_count), (Some(0.5), 10.0));
        assert!((sample.inter_token_seconds.unwrap() - 0.02).abs() < 1e-12);
        assert!((sample.queue_wait_seconds.unwrap() - 0.1).abs() < 1e-12);
        assert_eq!((sample.iterations, sample.iteration_tokens, sample.preempted), (20.0, 1110.0, 0.0));
        assert_eq!((sample.ttft_p50_seconds, sample.ttft_p95_seconds), (Some(0.25), Some(0.925)));
        assert!((sample.inter_token_p95_seconds.unwrap() - 0.095).abs() < 1e-12);
    }

    #[test]
    fn quantiles_need_both_pages() {
        let mut first = reading(100.0, 4.0, 2.0);
        first.ttft_buckets = None;
        let sample = between(Some((&first, SECOND)), &reading(110.0, 4.0, 2.0)).sample;
        assert_eq!((sample.ttft_p50_seconds, sample.ttft_seconds), (None, Some(0.5)));
        let idle = between(Some((&reading(110.0, 4.0, 2.0), SECOND)), &reading(110.0, 4.0, 2.0)).sample;
        assert_eq!((idle.ttft_p50_seconds, idle.ttft_seconds), (None, None));
    }

    #[test]
    fn a_missed_scrape_loses_nothing() {
        let sample = between(Some((&reading(100.0, 4.0, 2.0), 3 * SECOND)), &reading(130.0, 4.0, 2.0)).sample;
        assert_eq!((sample.interval_seconds, sample.arrived), (3.0, 30.0));
    }

    #[test]
    fn a_restart_starts_anew() {
        let Difference { sample, restarted, .. } =
            between(Some((&reading(100.0, 4.0, 2.0), SECOND)), &reading(3.0, 1.0, 0.0));
        assert!(restarted);
        assert_eq!((sample.interval_seconds, sample.arrived, sample.completed), (0.0, 0.0, 0.0));
        assert_eq!(sample.running, Some(1.0));
    }

    #[test]
    fn absurd_means_are_dropped_and_counted() {
        let mut late = reading(101.0, 0.0, 0.0);
        late.set(Field::TtftSum, 1e9);
        late.set(Field::InterTokenSum, 0.0);
        let Difference { sample, drops, .. } = between(Some((&reading(100.0, 0.0, 0.0), SECOND)), &late);
        assert_eq!((sample.ttft_seconds, sample.inter_token_seconds), (None, None));
        let dropped: Vec<_> = drops.iter().collect();
        let expected =
            [(Field::TtftSum, DropReason::TooLarge, 1), (Field::InterTokenSum, DropReason::Negative, 1)];
        assert_eq!(dropped, expected);
    }

    proptest! {
        #[test]
        fn arrivals_add_up_over_any_scrapes(
            steps in proptest::collection::vec((0_u32..20, 0_u32..50, 0_u32..50), 2..20)
        ) {
            let mut completed = 0.0;
            let mut readings = Vec::new();
            for (done, running, queue) in steps {
                completed += f64::from(done);
                readings.push(reading(completed, f64::from(running), f64::from(queue)));
            }
            for pair in readings.windows(2) {
                let sample = between(Some((&pair[0], SECOND)), &pair[1]).sample;
                for count in [sample.arrived, sample.completed, sample.ttft_count, sample.output_tokens] {
                    prop_assert!(count >= 0.0);
                }
                let level = |reading: &EngineReading| {
                    reading.get(Field::Running).unwrap() + reading.get(Field::QueueDepth).unwrap()
                };
                let exact = sample.completed + level(&pair[1]) - level(&pair[0]);
                prop_assert!((sample.arrived - exact.max(0.0)).abs() < 1e-9);
            }
        }
    }
}
