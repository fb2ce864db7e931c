//! Another process that writes telemetry until it is killed, and tells what it did; and the count of what arrived.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clairvoy::store::{SpoolSettings, Store, TelemetryWriter, WriterSettings};
use clairvoy::telemetry::Sample;

use crate::support::{external, sample, today};

const URL: &str = "CLAIRVOY_TEST_SENDER_URL";
const SPOOL: &str = "CLAIRVOY_TEST_SENDER_SPOOL";
const ROWS: &str = "CLAIRVOY_TEST_SENDER_ROWS";
const SAID: &str = "sender: ";

/// Rows that are recorded at a time.
pub(crate) const CHUNK: u64 = 500;

/// What a sender said last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// Rows recorded.
    pub(crate) sent: u64,
    /// Of these, rows in memory only.
    pub(crate) in_memory: u64,
    pub(crate) written: u64,
    pub(crate) spooled: u64,
    pub(crate) dropped: u64,
}

/// A sender; killed when dropped.
pub(crate) struct Sender {
    child: Child,
    told: Arc<Mutex<Told>>,
}

impl Sender {
    /// Starts one that records `rows`, numbered from 0, some 50,000 a second, and ends when none is left anywhere.
    pub(crate) fn start(url: &str, spool: &Path, rows: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sender::write_telemetry", "--ignored", "--nocapture"])
            .env(URL, url)
            .env(SPOOL, spool)
            .env(ROWS, rows.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = Arc::new(Mutex::new(Told::default()));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let newest = Arc::clone(&told);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, numbers)) = line.split_once(SAID) {
                    let numbers: Vec<u64> =
                        numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
                    // The last line may be cut off.
                    if let [sent, in_memory, written, spooled, dropped] = numbers[..] {
                        *newest.lock().unwrap() = Told { sent, in_memory, written, spooled, dropped };
                    }
                }
            }
        });
        Self { child, told }
    }

    pub(crate) fn told(&self) -> Told {
        *self.told.lock().unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some_and(|status| {
            assert!(status.success(), "{status}");
            true
        })
    }

    /// Kills it, and returns what it had said.
    pub(crate) fn kill(&mut self) -> Told {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        self.told()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sample with a number, which comes back as its prompt tokens.
pub(crate) fn numbered(number: u64) -> Sample {
    let at = today(0) + chrono::TimeDelta::milliseconds(i64::try_from(number).unwrap());
    Sample { prompt_tokens: number as f64, ..sample(&format!("10.1.0.{}:80", number % 100), at) }
}

/// Rows in the database, and how many different numbers they have.
pub(crate) async fn arrived(store: &Store) -> (u64, u64) {
    let (rows, numbers): (i64, i64) =
        sqlx::query_as("SELECT count(*), count(DISTINCT prompt_tokens) FROM backend_sample")
            .fetch_one(store.pool())
            .await
            .unwrap();
    (rows.unsigned_abs(), numbers.unsigned_abs())
}

/// Not a test: what the sender process runs.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn write_telemetry() {
    let Ok(url) = std::env::var(URL) else { return };
    let rows: u64 = std::env::var(ROWS).unwrap().parse().unwrap();
    let dir = std::env::var_os(SPOOL).unwrap().into();
    let settings = WriterSettings {
        batch_rows: 2_000,
        batch_time: Duration::from_millis(100),
        spool: Some(SpoolSettings { dir, max_bytes: 1 << 30 }),
        ..WriterSettings::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async move {
        let store = Store::open(external(url)).await.unwrap();
        let writer = TelemetryWriter::spawn(&store, settings);
        let counters = writer.counters();
        let mut sent = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut idle = 0;
        // A spool is known only after a moment.
        while sent < rows || writer.queued() > 0 || counters.in_spool().0 > 0 || idle < 100 {
            ticks.tick().await;
            idle += 1;
            if sent < rows {
                writer.record((sent..sent + CHUNK).map(numbered));
                sent += CHUNK;
                idle = 0;
            }
            let (written, spooled) = (counters.rows_written(), counters.rows_spooled());
            println!("{SAID}{sent} {} {written} {spooled} {} ", writer.queued(), counters.rows_dropped());
        }
        writer.shutdown(Duration::from_secs(5)).await;
    });
}
