use std::os::unix::fs::FileExt as _;

use chrono::DateTime;
use proptest::prelude::*;
use tempfile::TempDir;

use super::super::writer::Ids;
use super::*;
use crate::telemetry::Sample;

fn batch(ids: &mut Ids, first: i64, rows: i64) -> Batch {
    let sample = |second: i64| Sample {
        at: DateTime::from_timestamp(second, 500_000_000).unwrap(),
        backend: format!("10.0.0.{}:80", second % 3).into(),
        interval_seconds: 1.0,
        queue_depth: Some(3.0),
        ttft_p95_seconds: Some(0.25),
        iteration_tokens: 512.0,
        output_tokens: 1.0 / 3.0,
        ..Sample::default()
    };
    Batch { id: ids.next(), samples: (first..first + rows).map(sample).collect() }
}

fn open(dir: &TempDir, max_bytes: u64) -> Spool {
    let settings = SpoolSettings { dir: dir.path().join("spool"), max_bytes };
    Spool::open(settings, Arc::default(), false).unwrap()
}

/// Takes everything out and returns the seconds of the first sample of each batch.
fn drain(spool: &mut Spool) -> Vec<i64> {
    let mut found = Vec::new();
    while let Some(Spooled { batch, position, .. }) = spool.oldest().unwrap() {
        found.push(batch.samples[0].at.timestamp());
        spool.done(position);
    }
    found
}

fn files(spool: &Spool) -> Vec<PathBuf> {
    let mut numbers = numbers(&spool.settings.dir).unwrap();
    numbers.sort_unstable();
    numbers.iter().map(|number| spool.settings.dir.join(format!("{number:020}.spool"))).collect()
}

#[test]
fn batches_come_back_whole_and_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut ids = Ids::new();
    let batches: Vec<Batch> = (0..50).map(|n| batch(&mut ids, n * 100, 100)).collect();
    for batch in &batches[..40] {
        spool.append(batch).unwrap();
    }
    for expected in &batches[..3] {
        let found = spool.oldest().unwrap().unwrap();
        assert_eq!((&found.batch, found.inherited), (expected, false));
        spool.done(found.position);
    }
    drop(spool);

    let mut spool = open(&dir, 1 << 20);
    assert_eq!(spool.counters.in_spool().0, 4_000, "those of a segment that was begun are read again");
    for batch in &batches[40..] {
        spool.append(batch).unwrap();
    }
    let mut found = Vec::new();
    while let Some(Spooled { batch, inherited, position }) = spool.oldest().unwrap() {
        assert_eq!(inherited, batch.id.number <= 40);
        found.push(batch);
        spool.done(position);
    }
    assert_eq!(found, batches);
    assert_eq!((spool.counters.in_spool(), files(&spool).len()), ((0, 0), 0), "nothing is left on the disk");
}

#[test]
fn beyond_the_bound_the_oldest_go_and_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 100_000);
    let mut ids = Ids::new();
    for n in 0..100 {
        spool.append(&batch(&mut ids, n * 50, 50)).unwrap();
        let on_disk: u64 = files(&spool).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(on_disk <= 100_000, "{on_disk} bytes");
    }
    let found = drain(&mut spool);
    assert_eq!(found.last(), Some(&4_950), "the newest are kept");
    assert!(found.windows(2).all(|pair| pair[0] + 50 == pair[1]));
    assert!(found.len() > 10);
    assert_eq!(spool.counters.rows_dropped(), 5_000 - 50 * found.len() as u64);
    assert!(spool.counters.take_news().iter().any(|(_, said)| said.contains("the spool is full")));
    let large = batch(&mut ids, 0, 5_000);
    assert!(matches!(spool.append(&large), Err(SpoolError::TooLarge { .. })));
}

#[test]
fn a_batch_in_hand_whose_segment_was_dropped_is_lost_only_if_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    for is_written in [true, false] {
        let mut spool = open(&dir, 20_000);
        let mut ids = Ids::new();
        spool.append(&batch(&mut ids, 0, 50)).unwrap();
        let in_hand = spool.oldest().unwrap().unwrap();
        while spool.counters.rows_spooled() < 500 {
            spool.append(&batch(&mut ids, 1_000, 50)).unwrap();
        }
        if is_written {
            spool.done(in_hand.position);
        } else {
            spool.keep(in_hand.position);
        }
        let written = 50 * drain(&mut spool).len() as u64 + if is_written { 50 } else { 0 };
        assert_eq!(written + spool.counters.rows_dropped(), spool.counters.rows_spooled());
    }
}

#[test]
fn a_torn_end_is_cut_and_told_wherever_it_is() {
    let mut ids = Ids::new();
    let (first, second) = (batch(&mut ids, 0, 20), batch(&mut ids, 20, 20));
    let ends = {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(&dir, 1 << 20);
        spool.append(&first).unwrap();
        let end = spool.bytes();
        spool.append(&second).unwrap();
        (end, spool.bytes())
    };
    for length in (0..ends.1).step_by(7) {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(&dir, 1 << 20);
        spool.append(&first).unwrap();
        spool.append(&second).unwrap();
        let path = files(&spool).remove(0);
        drop(spool);
        File::options().write(true).open(&path).unwrap().set_len(length).unwrap();

        let mut spool = open(&dir, 1 << 20);
        let whole = usize::from(length >= ends.0);
        let is_torn = ![0, segment::HEAD_BYTES, ends.0].contains(&length);
        assert_eq!(!spool.counters.take_news().is_empty(), is_torn || whole > 0, "at {length}");
        assert_eq!(drain(&mut spool).len(), whole, "at {length}");
        let header_is_whole = length >= ends.0 * whole as u64 + segment::HEAD_BYTES * (1 - whole as u64) + 12;
        assert_eq!(spool.counters.rows_dropped(), if header_is_whole { 20 } else { 0 }, "at {length}");
        spool.append(&second).unwrap();
        assert_eq!(drain(&mut spool), [20], "and it goes on");
    }
}

#[test]
fn a_segment_with_a_wrong_byte_is_dropped_from_there_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut ids = Ids::new();
    for n in 0..3 {
        spool.append(&batch(&mut ids, n * 20, 20)).unwrap();
    }
    let path = files(&spool).remove(0);
    let third = spool.bytes() / 3;
    File::options().write(true).open(path).unwrap().write_all_at(b"?", third + 40).unwrap();
    assert_eq!(drain(&mut spool), [0]);
    assert_eq!(spool.counters.rows_dropped(), 40);
    assert!(spool.counters.take_news()[0].1.contains("wrong checksum"));
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir, 1 << 20);
    let second = Spool::open(first.settings.clone(), Arc::default(), false);
    assert!(matches!(second, Err(SpoolError::Locked(_))));
    drop(first);
    open(&dir, 1 << 20);
}

#[test]
fn a_sync_that_fails_is_told_and_neither_loses_nor_repeats_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut ids = Ids::new();
    spool.append(&batch(&mut ids, 0, 20)).unwrap();
    let (here, away) = (dir.path().join("spool"), dir.path().join("away"));
    fs::rename(&here, &away).unwrap();
    assert!(!spool.sync(), "the folder is not there");
    spool.append(&batch(&mut ids, 20, 20)).unwrap();
    assert!(spool.counters.take_news()[0].1.contains("may not be on the disk"));
    fs::rename(&away, &here).unwrap();
    assert!(spool.sync());
    assert_eq!(drain(&mut spool), [0, 20]);
}

#[test]
fn few_files_are_open_however_many_segments_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut ids = Ids::new();
    while spool.segments.len() < 10 {
        spool.append(&batch(&mut ids, 0, 100)).unwrap();
    }
    let open_files = |spool: &Spool| spool.segments.iter().filter(|segment| segment.is_open()).count();
    assert_eq!(open_files(&spool), 1, "the newest");
    spool.oldest().unwrap().unwrap();
    assert_eq!(open_files(&spool), 2, "and the oldest");
    drop(spool);
    let spool = open(&dir, 1 << 20);
    assert!(spool.segments.len() >= 10);
    assert_eq!(open_files(&spool), 0);
}

#[test]
fn a_segment_that_cannot_be_read_now_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut ids = Ids::new();
    while spool.segments.len() < 3 {
        spool.append(&batch(&mut ids, 0, 100)).unwrap();
    }
    let rows = spool.rows();
    let (path, aside) = (files(&spool).remove(0), dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    // A folder in its place can be opened by nobody for writing.
    fs::create_dir(&path).unwrap();
    assert_eq!(spool.oldest().unwrap_err().kind(), io::ErrorKind::IsADirectory);
    let settings = spool.settings.clone();
    assert_eq!((spool.rows(), spool.counters.rows_dropped()), (rows, 0));
    drop(spool);
    assert!(matches!(Spool::open(settings.clone(), Arc::default(), false), Err(SpoolError::Open { .. })));
    let skipping = Spool::open(settings.clone(), Arc::default(), true).unwrap();
    assert!(skipping.rows() < rows);
    drop(skipping);

    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(Spool::open(settings, Arc::default(), false).unwrap().rows(), rows);
}

/// The bytes of a spool with one segment, and its batches.
fn written(batches: i64) -> (Vec<u8>, Vec<Batch>) {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut ids = Ids::new();
    let batches: Vec<Batch> = (0..batches).map(|n| batch(&mut ids, n * 10, 1 + n % 4)).collect();
    batches.iter().for_each(|batch| spool.append(batch).unwrap());
    (std::fs::read(files(&spool).remove(0)).unwrap(), batches)
}

/// Opens a spool with a segment of these bytes, and takes out what can be read.
fn found_in(bytes: &[u8]) -> Vec<Batch> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("spool")).unwrap();
    std::fs::write(dir.path().join("spool").join(format!("{:020}.spool", 1)), bytes).unwrap();
    let mut spool = open(&dir, 1 << 20);
    let mut found = Vec::new();
    while let Some(Spooled { batch, position, .. }) = spool.oldest().unwrap() {
        found.push(batch);
        spool.done(position);
    }
    let last = batch(&mut Ids::new(), 1_000, 3);
    spool.append(&last).unwrap();
    assert_eq!(spool.oldest().unwrap().unwrap().batch, last, "and it goes on");
    found
}

fn any_sample() -> impl Strategy<Value = Sample> {
    let real = || proptest::option::of(any::<f32>().prop_map(f64::from));
    let reals = || (real(), real(), real(), real());
    (
        0..4_u8,
        -1_000_000_000_000_i64..4_000_000_000_000_000,
        reals(),
        reals(),
        reals(),
        (any::<f64>(), any::<f64>(), any::<f64>(), any::<f64>(), any::<f64>()),
        any::<bool>(),
    )
        .prop_map(|(backend, micros, first, second, third, counts, simulated)| Sample {
            at: DateTime::from_timestamp_micros(micros).unwrap(),
            backend: format!("10.0.0.{backend}:80").into(),
            interval_seconds: 1.0,
            queue_depth: first.0,
            running: first.1,
            kv_used: first.2,
            kv_used_max: first.3,
            gpu_utilisation: second.0,
            ttft_seconds: second.1,
            ttft_p50_seconds: second.2,
            ttft_p95_seconds: second.3,
            inter_token_seconds: third.0,
            inter_token_p95_seconds: third.1,
            queue_wait_seconds: third.2,
            ttft_count: counts.0,
            arrived: counts.1,
            completed: counts.2,
            prompt_tokens: counts.3,
            output_tokens: counts.4,
            simulated,
            ..Sample::default()
        })
}

proptest! {
    #![proptest_config(crate::fuzz::few_cases())]

    #[test]
    fn any_batch_comes_back_as_it_was(samples in proptest::collection::vec(any_sample(), 1..20)) {
        let batch = Batch { id: Ids::new().next(), samples };
        let dir = tempfile::tempdir().unwrap();
        let mut spool = open(&dir, 1 << 20);
        spool.append(&batch).unwrap();
        drop(spool);
        let found = open(&dir, 1 << 20).oldest().unwrap().unwrap().batch;
        // As text, in which NaN is like itself.
        prop_assert_eq!(format!("{found:?}"), format!("{batch:?}"));
    }

    #[test]
    fn a_segment_with_flipped_bits_gives_no_wrong_row(
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8_u32), 1..6),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
    ) {
        let (mut bytes, batches) = written(5);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let found = found_in(&bytes);
        prop_assert!(batches.starts_with(&found), "{found:?}");
    }

    #[test]
    fn a_segment_of_any_bytes_gives_no_row(
        head in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let head: &[u8] = if head { &written(1).0[..segment::HEAD_BYTES as usize] } else { &[] };
        prop_assert_eq!(found_in(&[head, &bytes].concat()), []);
    }
}

proptest! {
    #![proptest_config(crate::fuzz::cases())]

    #[test]
    fn any_bytes_are_a_record_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(batch) = Batch::try_from(bytes.as_slice()) {
            prop_assert!(batch.samples.len() <= bytes.len());
        }
    }
}
