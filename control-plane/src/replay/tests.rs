mod hostile;
mod told;

use std::collections::VecDeque;
use std::io::{BufReader, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::row::Kind;
use super::*;
use crate::config::{self, Config};
use crate::discovery::{Answer, Looked, LookupFailure};
use crate::envoy::{
    BackendLog, EndpointLoad, FirstBytes, GroupLoad, LaneCounts, LaneLog, LogSummary, ModelLoad, NodeLoad,
    Responses, Tokens,
};
use crate::learn::{Insight, Learner, Lesson};
use crate::packed::unpacked;
use crate::run::{Core, Effect, Input, Order, Pending};
use crate::store::DecisionRow;
use crate::telemetry::Sample;

use told::{settings_with_dns, told};

const BACKENDS: [&str; 3] = ["10.0.0.1:8000", "10.0.0.2:8000", "10.0.0.3:8000"];

fn settings(balance: &str) -> Config {
    config::parse(&format!(
        "{balance}\nforecast: {{ step: 10s, season: 20m, horizons: [10s, 20s, 60s] }}\n\
         models: [{{ name: chat, pools: [a] }}]\npools:\n  - name: a\n    \
         replicas: {{ min: 1, max: 9, cold_start: 10s, scale_down_after: 20s }}\n    backends: {BACKENDS:?}\n"
    ))
    .unwrap()
}

fn at(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_700_000_000_000_000 + micros).unwrap()
}

/// A backend under a load that comes and goes; the second one is slowed after two minutes.
fn sample(index: usize, second: i64) -> Sample {
    let wave = |pace: f64| (second as f64 * pace + 1.7 * index as f64).sin();
    let times = if index == 1 && second > 120 { 4.0 } else { 1.0 };
    let rps = 4.0 + 2.0 * wave(0.05) + 0.5 * wave(1.9);
    // The third one hangs for a while.
    let hangs = index == 2 && (150..190).contains(&second);
    let rps = if hangs { 0.0 } else { rps };
    Sample {
        at: at(1_000_000 * second + 217_001 * (index as i64 + 1)),
        backend: BACKENDS[index].into(),
        interval_seconds: 1.0,
        queue_depth: Some((2.0 * times * (1.0 + wave(0.13))).round()),
        running: Some(8.0 + wave(0.3)),
        kv_used: Some(0.3),
        ttft_seconds: (!hangs).then(|| times * (0.2 + 0.1 * wave(0.13).abs())),
        ttft_count: rps,
        inter_token_seconds: (!hangs).then(|| 0.02 * times * (1.0 + 0.1 * wave(2.3))),
        arrived: rps,
        completed: rps,
        prompt_tokens: 400.0 * rps,
        output_tokens: 60.0 * rps,
        ..Sample::default()
    }
    .as_kept()
}

/// A controller beside a learner that is slow at times, and what an export has of them.
struct Live {
    core: Core,
    learner: Learner,
    findings: VecDeque<Insight>,
    rows: Vec<Row>,
    decided: Vec<DecisionRow>,
}

impl Live {
    fn feed(&mut self, input: Input) {
        self.rows.push(Row(Kind::Input(Box::new(input.as_recorded()))));
        if let Input::Sample { at, sample } = &input {
            *self.rows.last_mut().unwrap() = Row(Kind::Sample(*at, sample.clone()));
        }
        let _ = self.core.take(input);
        for effect in self.core.effects() {
            match effect {
                Effect::Teach(lesson) => self.findings.extend(self.learner.learn(lesson)),
                Effect::Decided(row) => {
                    self.decided.push((*row).clone());
                    self.rows.push(Row(Kind::Decision(row)));
                }
                _ => {}
            }
        }
    }

    /// Takes so many of the learner's findings in, if there are.
    fn take_findings(&mut self, most: usize, now: DateTime<Utc>) {
        let (mut waits, mut forecasts, mut signs) = (0, 0, 0);
        for insight in self.findings.drain(..most.min(self.findings.len())) {
            match insight {
                Insight::Wait(..) => waits += 1,
                Insight::Forecast(..) => forecasts += 1,
                Insight::Signs(..) => signs += 1,
                _ => {}
            }
            self.core.learned(insight, now);
        }
        self.core.effects();
        self.rows.push(Row(Kind::Learned { waits, forecasts, signs }));
    }

    fn checkpoint(&mut self, now: DateTime<Utc>) {
        let pending: Vec<Pending> = self.findings.iter().filter_map(Pending::of).collect();
        let learner = self.learner.learn(Lesson::Checkpoint).into_iter().find_map(|insight| match insight {
            Insight::Checkpoint(state) => Some(unpacked(&state).unwrap()),
            _ => None,
        });
        let state = format!(
            "{{\"at\":{},\"core\":{},\"pending\":{},\"learner\":{}}}",
            serde_json::to_string(&now).unwrap(),
            serde_json::to_string(&self.core.checkpoint()).unwrap(),
            serde_json::to_string(&pending).unwrap(),
            learner.unwrap(),
        );
        let scope = Scope {
            from: now,
            to: at(i64::from(u32::MAX) * 1_000_000),
            model: None,
            ordered: true,
            program: "a test".to_owned(),
        };
        self.rows = vec![Row(Kind::Scope(scope)), Row(Kind::Checkpoint(state))];
        self.decided.clear();
    }
}

/// Runs for some seconds, with a checkpoint in between; returns the rows since, and the decisions.
fn live(seconds: i64, checkpoint_at: i64) -> (Vec<Row>, Vec<DecisionRow>) {
    live_with(settings(""), seconds, checkpoint_at, |_, _| Vec::new())
}

/// The same with more inputs, by second and the time at which they come.
fn live_with(
    config: Config,
    seconds: i64,
    checkpoint_at: i64,
    others: impl Fn(i64, DateTime<Utc>) -> Vec<Input>,
) -> (Vec<Row>, Vec<DecisionRow>) {
    let config = Arc::new(config);
    let mut core = Core::new(Arc::clone(&config), at(0));
    core.reconcile(at(0));
    let learner = Learner::new(&config.forecast);
    let (findings, rows, decided) = (VecDeque::new(), Vec::new(), Vec::new());
    let mut live = Live { core, learner, findings, rows, decided };
    for second in 0..seconds {
        for index in [1, 0, 2] {
            if (index, second % 50) == (2, 7) {
                let backend = BACKENDS[2].parse().unwrap();
                let message = "no connection".to_owned();
                live.feed(Input::Failure { backend, refused: Some(true), message });
            } else {
                let sample = Box::new(sample(index, second));
                live.feed(Input::Sample { at: sample.at + TimeDelta::milliseconds(31), sample });
            }
        }
        // The learner is behind by now and then, by different amounts.
        let now = at(1_000_000 * second + 999_123);
        live.take_findings([9, 1, 4, 2, 30][second as usize % 5], now);
        others(second, now - TimeDelta::milliseconds(100)).into_iter().for_each(|input| live.feed(input));
        live.feed(Input::Tick { at: now });
        if second == checkpoint_at {
            live.checkpoint(now);
        }
    }
    (live.rows, live.decided)
}

fn file(rows: &[Row]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    rows.iter().for_each(|row| writer.write(row).unwrap());
    writer.finish().unwrap().1
}

fn replayed(input: impl Read, other: Option<Config>) -> Result<(String, Replay, Comparison), FileError> {
    let mut reader = Reader::new(BufReader::with_capacity(64, input))?;
    let (mut replay, mut comparison, mut lines) = (Replay::new(other), Comparison::default(), String::new());
    while let Some(row) = reader.next_row()? {
        row.decision().into_iter().for_each(|decision| comparison.before(decision.clone()));
        for decision in replay.take(row).unwrap() {
            lines += &serde_json::to_string(&decision).unwrap();
            lines.push('\n');
            comparison.now(decision);
        }
    }
    Ok((lines, replay, comparison))
}

/// Gives a few bytes at a time.
struct Dripping<'a>(&'a [u8], usize);

impl Read for Dripping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = self.1.min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn a_replay_decides_what_was_decided_however_late_the_learner_was() {
    let (rows, decided) = live(300, 70);
    assert!(decided.len() > 5, "{decided:#?}");
    assert!(decided.iter().any(|row| row.kind == "replicas"), "{decided:#?}");
    let bytes = file(&rows);
    let (lines, replay, comparison) = replayed(bytes.as_slice(), None).unwrap();
    assert_eq!(comparison.difference(), None);
    assert_eq!(comparison.equal(), decided.len() as u64);
    assert_eq!((replay.tally().missing.clone(), replay.tally().not_found), (None, 0));
    let expected: String = decided.iter().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    assert_eq!(lines, expected);
    assert_eq!(replayed(bytes.as_slice(), None).unwrap().0, lines, "two runs, same bytes");
}

#[test]
fn who_is_sick_is_replayed_and_a_checkpoint_knows_it() {
    for checkpoint_at in [100, 160, 180] {
        let (mut rows, decided) = live(300, checkpoint_at);
        let was = |row: &DecisionRow, verdict: &str| row.inputs["backends"][2]["verdict"] == verdict;
        assert!(decided.iter().any(|row| was(row, "sick") && row.inputs["backends"][2]["sign"] == "silent"));
        assert!(decided.last().is_some_and(|row| !was(row, "sick")), "it is well again");
        let (_, replay, comparison) = replayed(file(&rows).as_slice(), None).unwrap();
        assert_eq!((comparison.difference(), replay.tally().not_found), (None, 0), "{checkpoint_at}");
        assert_eq!(comparison.equal(), decided.len() as u64);
        for row in &mut rows {
            if let Kind::Learned { signs, .. } = &mut row.0 {
                *signs = 0;
            }
        }
        let (_, _, comparison) = replayed(file(&rows).as_slice(), None).unwrap();
        assert!(comparison.difference().is_some(), "{checkpoint_at}: without signs all is the same");
    }
}

#[test]
fn what_dns_leases_and_envoys_told_is_replayed() {
    for checkpoint_at in [0, 70, 120] {
        let (mut rows, decided) = live_with(settings_with_dns(), 200, checkpoint_at, told);
        let all: String = decided.iter().map(|row| row.summary.clone() + "\n").collect();
        assert!(all.contains("2 zones: mean round trip"), "{all}");
        let (_, replay, comparison) = replayed(file(&rows).as_slice(), None).unwrap();
        assert_eq!(comparison.difference(), None, "{all}");
        assert_eq!(comparison.equal(), decided.len() as u64);
        assert_eq!((replay.tally().missing.clone(), replay.tally().not_found), (None, 0));
        if checkpoint_at > 0 {
            continue;
        }
        for lost in ["load", "log", "looked", "connected", "order"] {
            let is_lost = |row: &Row| match &row.0 {
                Kind::Input(input) => {
                    serde_json::to_value(input).unwrap().as_object().unwrap().contains_key(lost)
                }
                _ => false,
            };
            let kept: Vec<Row> = rows.extract_if(.., |row| !is_lost(row)).collect();
            let (_, _, comparison) = replayed(file(&kept).as_slice(), None).unwrap();
            assert!(comparison.difference().is_some(), "without {lost} all is the same");
            rows = live_with(settings_with_dns(), 200, checkpoint_at, told).0;
        }
    }
}

#[test]
fn when_findings_are_taken_in_matters_and_is_found_out() {
    let (mut rows, _) = live(200, 70);
    for row in &mut rows {
        if let Kind::Learned { forecasts, .. } = &mut row.0 {
            *forecasts = 0;
        }
    }
    let (_, _, comparison) = replayed(file(&rows).as_slice(), None).unwrap();
    let said = comparison.difference().unwrap();
    assert!(said.contains("the decision on replicas of a"), "{said}");
}

#[test]
fn other_settings_decide_otherwise_and_the_first_difference_is_told() {
    let (rows, _) = live(200, 70);
    let bolder = settings("balance: { smoothing: 0.9, dead_band: 0.001 }");
    let (lines, _, comparison) = replayed(file(&rows).as_slice(), Some(bolder.clone())).unwrap();
    let said = comparison.difference().unwrap();
    assert!(said.contains("the settings of `balance` differ") || said.contains("is made now"), "{said}");
    assert_eq!(replayed(file(&rows).as_slice(), Some(bolder)).unwrap().0, lines, "two runs, same bytes");
}

#[test]
fn telemetry_alone_is_replayed_on_a_clock_of_its_own() {
    let scope = Scope {
        from: at(0),
        to: at(200_000_000),
        model: Some("chat".to_owned()),
        ordered: false,
        program: "a test".to_owned(),
    };
    let config = Input::Config { at: at(0), config: Arc::new(settings("")) };
    let mut rows = vec![Row(Kind::Scope(scope)), Row(Kind::Input(Box::new(config)))];
    for second in 0..200 {
        rows.extend((0..3).map(|index| {
            let sample = Box::new(sample(index, second));
            Row(Kind::Sample(sample.at, sample))
        }));
    }
    let (lines, replay, _) = replayed(file(&rows).as_slice(), None).unwrap();
    assert_eq!((replay.tally().samples, replay.tally().ticks), (600, 199));
    assert!(replay.tally().decisions > 1 && lines.contains("slower than usual"), "{lines}");
    assert_eq!(replayed(file(&rows).as_slice(), None).unwrap().0, lines);
}

#[test]
fn files_that_are_not_whole_are_refused_in_words() {
    let said = |bytes: &[u8]| match replayed(bytes, None) {
        Err(error) => error.to_string(),
        Ok((lines, ..)) => panic!("{lines}"),
    };
    let text = file(&live(80, 70).0);
    assert!(said(b"timestamp_s,model,rps\n1,a,2\n").contains("begins with `timestamp_s`"));
    assert!(said(b"").contains("no export of clairvoy"));
    assert!(said(b"clairvoy_export_9,at\n").contains("has format 9, and this clairvoy reads format 1"));
    let end = text.len() - 1 - text[..text.len() - 1].iter().rev().position(|byte| *byte == b'\n').unwrap();
    assert!(said(&text[..end]).contains("breaks off after"), "{}", said(&text[..end]));
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut packer, &text).unwrap();
    let packed = packer.finish().unwrap();
    assert_eq!(replayed(packed.as_slice(), None).unwrap().0, replayed(text.as_slice(), None).unwrap().0);
    assert!(said(&packed[..packed.len() / 2]).contains("breaks off after"));
    let changed = String::from_utf8(text).unwrap().replacen(",1.0,", ",2.0,", 1);
    assert!(said(changed.as_bytes()).contains("changed, added or lost"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn how_the_bytes_come_does_not_matter(chunk in 1_usize..5000, cut in 0.0_f64..1.0) {
        let bytes = file(&live(85, 70).0);
        let whole = replayed(bytes.as_slice(), None).unwrap().0;
        prop_assert_eq!(replayed(Dripping(&bytes, chunk), None).unwrap().0, whole);
        let cut = (cut * (bytes.len() - 2) as f64) as usize;
        prop_assert!(replayed(Dripping(&bytes[..cut], chunk), None).is_err(), "cut at {}", cut);
    }

    #[test]
    fn samples_are_the_same_after_a_file(values in prop::array::uniform4(prop::num::f64::POSITIVE | prop::num::f64::ZERO)) {
        let [interval_seconds, arrived, completed, queue] = values;
        let sample = Sample { interval_seconds, arrived, completed, queue_depth: Some(queue), ..sample(0, 1) };
        let bytes = file(&[Row(Kind::Sample(at(5), Box::new(sample.clone())))]);
        match Reader::new(bytes.as_slice()).unwrap().next_row().unwrap().unwrap().0 {
            Kind::Sample(taken_at, found) => prop_assert_eq!((taken_at, *found), (at(5), sample)),
            other => panic!("{other:?}"),
        }
    }
}

/// All rows of a file as text, in which NaN is like itself, or why it cannot be read.
fn read_all(bytes: &[u8]) -> Result<Vec<String>, FileError> {
    let mut reader = Reader::limited(bytes, 1 << 20)?;
    let mut rows = Vec::new();
    while let Some(row) = reader.next_row()? {
        rows.push(format!("{row:?}"));
    }
    Ok(rows)
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::Write::write_all(&mut packer, bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn a_row_without_an_end_is_given_up_packed_or_not() {
    let header = file(&[]).split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
    for endless in [&b"\"a"[..], b"a", b",", b"\"\"\"\""] {
        for head in [&header[..], &[]] {
            let bomb = [head, &endless.repeat(20_000_000 / endless.len())].concat();
            for bytes in [gzipped(&bomb), bomb] {
                let said = read_all(&bytes).unwrap_err().to_string();
                let foreign = head.is_empty() && said.contains("no export of clairvoy");
                assert!(foreign || said.contains("too long"), "{said}");
            }
        }
    }
}

proptest! {
    #![proptest_config(crate::fuzz::cases())]

    #[test]
    fn changed_bytes_change_no_row_unnoticed(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        packed in any::<bool>(),
    ) {
        let rows: Vec<Row> =
            (0..4).map(|second| Row(Kind::Sample(at(second), Box::new(sample(0, second))))).collect();
        let whole = file(&rows);
        let mut bytes = if packed { gzipped(&whole) } else { whole.clone() };
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(rows) = read_all(&bytes) {
            prop_assert_eq!(rows, read_all(&whole).unwrap());
        }
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), head in 0..3) {
        let head: &[u8] = match head {
            0 => b"",
            1 => &GZIP_HEAD,
            _ => b"clairvoy_export_1,at,data\nsample,",
        };
        prop_assert!(read_all(&[head, &bytes].concat()).is_err());
    }

    #[test]
    fn numbers_that_are_none_come_back_as_they_were(
        value in prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), any::<f64>()],
    ) {
        let sample = Sample { queue_depth: Some(value), arrived: value, ..sample(0, 1) };
        let rows = [Row(Kind::Sample(at(5), Box::new(sample)))];
        prop_assert_eq!(read_all(&file(&rows)).unwrap(), [format!("{:?}", rows[0])]);
    }
}

const GZIP_HEAD: [u8; 3] = [0x1f, 0x8b, 8];
