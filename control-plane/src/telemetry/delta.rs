use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::field::{DropReason, Drops, Field};
use super::page::EngineReading;
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
    sample.interval_seconds = elapsed.as_secs_f64();
    sample.completed = grown(previous.completed, current.completed);
    sample.prompt_tokens = grown(previous.prompt_tokens, current.prompt_tokens);
    sample.output_tokens = grown(previous.output_tokens, current.output_tokens);
    sample.ttft_count = grown(previous.ttft_count, current.ttft_count);
    sample.arrived = (sample.completed + in_flight_growth(previous, current)).max(0.0);
    let ttft_sum = signed_growth(previous.ttft_sum_seconds, current.ttft_sum_seconds);
    sample.ttft_seconds = mean(ttft_sum, sample.ttft_count, Field::TtftSum, &mut drops);
    let gaps = grown(previous.inter_token_count, current.inter_token_count);
    let gap_sum = signed_growth(previous.inter_token_sum_seconds, current.inter_token_sum_seconds);
    sample.inter_token_seconds = mean(gap_sum, gaps, Field::InterTokenSum, &mut drops);
    Difference { sample, restarted: false, drops }
}

fn gauges(backend: Arc<str>, at: DateTime<Utc>, reading: &EngineReading) -> Sample {
    Sample {
        at,
        backend,
        queue_depth: reading.queue_depth,
        running: reading.running,
        kv_used: reading.kv_used,
        kv_used_max: reading.kv_used_max,
        gpu_utilisation: reading.gpu_utilisation,
        simulated: reading.simulated,
        ..Sample::default()
    }
}

fn went_backwards(previous: &EngineReading, current: &EngineReading) -> bool {
    let counters = |reading: &EngineReading| {
        [
            reading.completed,
            reading.prompt_tokens,
            reading.output_tokens,
            reading.ttft_count,
            reading.inter_token_count,
        ]
    };
    counters(previous).into_iter().zip(counters(current)).any(|pair| match pair {
        (Some(before), Some(now)) => now < before,
        _ => false,
    })
}

fn signed_growth(before: Option<f64>, now: Option<f64>) -> Option<f64> {
    Some(now? - before?)
}

fn grown(before: Option<f64>, now: Option<f64>) -> f64 {
    signed_growth(before, now).unwrap_or(0.0).max(0.0)
}

/// Growth of `running + queue_depth`; a gauge that is missing on either side is taken as unchanged.
fn in_flight_growth(previous: &EngineReading, current: &EngineReading) -> f64 {
    signed_growth(previous.running, current.running).unwrap_or(0.0)
        + signed_growth(previous.queue_depth, current.queue_depth).unwrap_or(0.0)
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
        EngineReading {
            completed: Some(completed),
            running: Some(running),
            queue_depth: Some(queue),
            ttft_count: Some(completed),
            ttft_sum_seconds: Some(completed * 0.5),
            inter_token_count: Some(completed * 10.0),
            inter_token_sum_seconds: Some(completed * 0.2),
            prompt_tokens: Some(completed * 100.0),
            output_tokens: Some(completed * 11.0),
            ..EngineReading::default()
        }
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
        late.ttft_sum_seconds = Some(1e9);
        late.inter_token_sum_seconds = Some(0.0);
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
                let level = |reading: &EngineReading| reading.running.unwrap() + reading.queue_depth.unwrap();
                let exact = sample.completed + level(&pair[1]) - level(&pair[0]);
                prop_assert!((sample.arrived - exact.max(0.0)).abs() < 1e-9);
            }
        }
    }
}
