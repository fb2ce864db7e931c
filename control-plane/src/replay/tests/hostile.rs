//! Files that were made to stop a replay.

use super::*;

fn scope(ordered: bool) -> Row {
    let (from, to) = (at(0), at(1_000_000_000_000_000));
    Row(Kind::Scope(Scope { from, to, model: None, ordered, program: "a test".to_owned() }))
}

fn config_row(config: Config) -> Row {
    Row(Kind::Input(Box::new(Input::Config { at: at(0), config: Arc::new(config) })))
}

/// Replays rows after they were in a file; returns why that ends.
fn refusal(rows: Vec<Row>) -> String {
    let bytes = file(&rows);
    let mut reader = Reader::new(bytes.as_slice()).unwrap();
    let mut replay = Replay::new(None);
    while let Some(row) = reader.next_row().unwrap() {
        if let Err(error) = replay.take(row) {
            return error.to_string();
        }
    }
    "it is taken".to_owned()
}

fn far() -> DateTime<Utc> {
    "+200000-01-01T00:00:00Z".parse().unwrap()
}

#[test]
fn settings_that_clairvoy_would_not_run_with_are_refused() {
    let with = |change: fn(&mut Config)| {
        let mut config = settings("");
        change(&mut config);
        refusal(vec![scope(false), config_row(config)])
    };
    assert_eq!(with(|_| ()), "it is taken");
    let said = with(|config| config.pools[0].replicas.cold_start = config::Span::seconds(u64::MAX / 2));
    assert!(said.contains("`cold_start` is ") && said.contains("more than ten years"), "{said}");
    let said = with(|config| config.forecast.step = config::Span::seconds(0));
    assert!(said.contains("forecast.step"), "{said}");
    let said = with(|config| config.models[0].pools.push("none".to_owned()));
    assert!(said.contains("there is no pool `none`"), "{said}");
    // Where its telemetry is pushed to is not in the file.
    assert_eq!(with(|config| config.pools[0].telemetry = config::PoolTelemetry::Push), "it is taken");
}

#[test]
fn times_that_cannot_be_are_refused() {
    let first_bytes = FirstBytes {
        arrived_at: far(),
        requests: 1.0,
        mean_seconds: 0.1,
        p50_seconds: 0.1,
        p95_seconds: 0.1,
    };
    let log = BackendLog { requests: 1.0, first_bytes: vec![first_bytes], ..BackendLog::default() };
    let backends = [(BACKENDS[0].parse().unwrap(), log)].into();
    let summary = LogSummary { backends, ..LogSummary::default() };
    let address = BACKENDS[0].parse().unwrap();
    let order = Order::Lease { pool: "a".to_owned(), address, length: TimeDelta::MAX };
    let learn = Order::Learn { histories: vec![("chat".to_owned(), i64::MAX, vec![Some(1.0)])] };
    for input in [
        Input::Tick { at: far() },
        Input::Log { at: at(1), summary },
        Input::Order { at: at(1), order },
        Input::Order { at: at(1), order: learn },
        Input::Connected { nodes: ["a".to_owned()].into(), report_seconds: u64::MAX, zones: Vec::new() },
    ] {
        let said = refusal(vec![scope(true), config_row(settings("")), Row(Kind::Input(Box::new(input)))]);
        assert!(said.contains("the file says what cannot be"), "{said}");
    }
    let sample = Box::new(Sample { at: far(), ..sample(0, 1) });
    let said = refusal(vec![scope(false), config_row(settings("")), Row(Kind::Sample(at(1), sample))]);
    assert!(said.contains("+200000-01-01T00:00:00+00:00 is no time of an export"), "{said}");
}

#[test]
fn numbers_of_a_checkpoint_that_cannot_be_stop_no_replay() {
    let changed = |from: &str, to: &str| {
        let mut rows = live(90, 70).0;
        let Kind::Checkpoint(state) = &mut rows[1].0 else { panic!("{:?}", rows[1]) };
        assert!(state.contains(from), "{state}");
        *state = state.replace(from, to);
        refusal(rows)
    };
    let said = changed("\"step_seconds\":10", "\"step_seconds\":0");
    assert!(said.contains("step of 0 s"), "{said}");
    let began = serde_json::to_string(&at(0)).unwrap();
    let said = changed(&began, "\"+262142-12-31T23:59:59Z\"");
    assert!(said.contains("is no time of an export"), "{said}");
    for (from, to) in [
        ("\"lag_seconds\":0", "\"lag_seconds\":9223372036854775807"),
        ("\"lag_seconds\":0", "\"lag_seconds\":-9223372036854775808"),
        ("\"interval_seconds\":0.0", "\"interval_seconds\":1e300"),
    ] {
        assert_eq!(changed(from, to), "it is taken", "{to}");
    }
    let said = changed("\"cold_start\":\"10s\"", "\"cold_start\":\"300000years\"");
    assert!(said.contains("more than ten years"), "{said}");
}

#[test]
fn a_sample_of_the_far_future_makes_no_ticks_without_end() {
    let mut rows = vec![scope(false), config_row(settings(""))];
    for second in [0, 1, 4_000_000_000, 4_000_000_001] {
        let sample = Box::new(sample(0, second));
        rows.push(Row(Kind::Sample(sample.at, sample)));
    }
    let (_, replay, _) = replayed(file(&rows).as_slice(), None).unwrap();
    assert_eq!((replay.tally().samples, replay.tally().ticks), (4, 1 + 3600 + 1));
    let missing = replay.tally().missing.clone().unwrap();
    assert!(missing.contains("no telemetry until 2150-"), "{missing}");
}

#[test]
fn a_row_of_countless_cells_is_given_up() {
    let header = file(&[]).split_inclusive(|byte| *byte == b'\n').next().unwrap().to_vec();
    for row in [b",".repeat(100_000), b"a\"\",\"x\",".repeat(10_000), b"\"a\"b,".repeat(10_000)] {
        let bytes = [&header[..], &row].concat();
        let read = Reader::new(bytes.as_slice()).and_then(|mut reader| reader.next_row());
        let said = read.unwrap_err().to_string();
        assert!(said.contains("too long"), "{said}");
    }
}

#[test]
fn columns_that_were_exchanged_or_lost_are_noticed() {
    let whole = String::from_utf8(file(&[Row(Kind::Sample(at(1), Box::new(sample(0, 1))))])).unwrap();
    let read = |text: &str| {
        let mut reader = Reader::new(text.as_bytes()).map_err(|error| error.to_string())?;
        while reader.next_row().map_err(|error| error.to_string())?.is_some() {}
        Ok::<_, String>(())
    };
    assert_eq!(read(&whole), Ok(()));
    let (header, rest) = whole.split_once('\n').unwrap();
    let exchanged =
        header.replace("completed", "#").replace("output_tokens", "completed").replace('#', "output_tokens");
    assert_ne!(exchanged, header);
    let lost = header.replace(",completed", "");
    for header in [exchanged, lost] {
        assert!(read(&format!("{header}\n{rest}")).is_err(), "{header}");
    }
}

#[test]
fn all_decisions_of_a_large_fleet_may_wait_for_the_other_side() {
    let (_, decided) = live(300, 70);
    let mut comparison = Comparison::default();
    (0..20_000).for_each(|_| comparison.before(decided[0].clone()));
    (0..20_000).for_each(|_| comparison.now(decided[0].clone()));
    assert_eq!((comparison.equal(), comparison.difference()), (20_000, None));
}

#[test]
fn of_decisions_that_the_other_side_has_not_few_are_kept() {
    let (_, decided) = live(300, 70);
    let row = &decided[0];
    let mut comparison = Comparison::default();
    (0..100_000).for_each(|_| comparison.before(row.clone()));
    let said = comparison.difference().unwrap();
    assert!(said.contains("was made before, and is not made now"), "{said}");
    comparison.now(row.clone());
    assert_eq!((comparison.equal(), comparison.difference()), (0, Some(said)));
    assert!(format!("{comparison:?}").len() < 1000, "{comparison:?}");
}
