//! The example `serve_dir` as a program: files in, protocol and lines out.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clairvoy_xds::ResourceType::{Cluster, ClusterLoadAssignment};
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::fixtures;
use crate::harness::{Client, Delta, names};

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder for the program.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, bytes: &[u8]) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// A cluster and its endpoints, in files whose names say nothing.
    fn cluster(&self, name: &str, timeout_ms: u64) {
        self.write(&format!("cds/file-{name}.pb"), &fixtures::cluster(name, timeout_ms).encode_to_vec());
        self.write(&format!("eds/file-{name}.pb"), &fixtures::assignment(name, 80).encode_to_vec());
    }

    fn commit(&self) {
        let next = self.path().join(".commit.next");
        fs::write(&next, "").unwrap();
        fs::rename(next, self.path().join(".commit")).unwrap();
    }
}

/// The running program. Killed when dropped.
struct Program {
    child: Child,
    /// Lines before the one that tells the addresses.
    early: RefCell<VecDeque<String>>,
    lines: mpsc::Receiver<String>,
    xds: SocketAddr,
    admin: SocketAddr,
}

/// Cargo builds examples beside the tests, in a folder next to theirs.
fn binary() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let binary = tests.parent().and_then(Path::parent).unwrap().join("examples/serve_dir");
    assert!(binary.exists(), "{} is missing: build the examples with the tests", binary.display());
    binary
}

impl Program {
    fn start(folder: &Folder) -> Self {
        let mut child = Command::new(binary())
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(["--drain-seconds", "0.2", "--grace-seconds", "2"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program = Self { child, early: RefCell::default(), lines, xds: nowhere, admin: nowhere };
        let line = loop {
            let line = program.lines.recv_timeout(PATIENCE).expect("the addresses");
            if line.starts_with("listening ") {
                break line;
            }
            program.early.get_mut().push_back(line);
        };
        let address = |key| line.split(' ').find_map(|part| part.strip_prefix(key)).unwrap().parse().unwrap();
        program.xds = address("xds=");
        program.admin = address("admin=");
        program
    }

    /// The next line, which begins in this way. Blocks, so that clients need a thread of their own.
    #[track_caller]
    fn line(&self, begin: &str) -> String {
        let early = self.early.borrow_mut().pop_front();
        let line = early.unwrap_or_else(|| self.lines.recv_timeout(PATIENCE).expect(begin));
        assert!(line.starts_with(begin), "{line}");
        line
    }

    /// The status and the text of a page.
    fn get(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.admin).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_become_resources_and_answers_become_lines() {
    let folder = Folder::new();
    folder.cluster("a", 1000);
    folder.write("cds/README.txt", b"not a resource");
    let program = Program::start(&folder);
    assert_eq!(
        program.line("published "),
        "published snapshot=1 RTDS=0 SDS=0 CDS=1 EDS=1 LDS=0 RDS=0",
        "without .commit, what is there at the start counts"
    );

    let mut client = Client::<Delta>::with_clusters(program.xds).await;
    let response = client.expect_acked(Cluster).await;
    assert_eq!(names(&response), ["a"]);
    let ack = program.line("ack node=\"proxy\" type=CDS latency_ms=");
    ack.rsplit('=').next().unwrap().parse::<f64>().unwrap();

    client.subscribe(ClusterLoadAssignment, &["a"]).await;
    let response = client.expect(ClusterLoadAssignment).await;
    client.nack(&response, "no such\nthing").await;
    assert_eq!(
        program.line("nack "),
        "nack node=\"proxy\" type=EDS resources=[\"a\"] message=\"no such\\nthing\""
    );
    let (status, text) = program.get("/metrics");
    assert_eq!(status, 200);
    for line in ["xds_nacks_total{type=\"EDS\"} 1", "xds_transport_connections 1"] {
        assert!(text.lines().any(|seen| seen == line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_counts_when_it_is_committed() {
    let folder = Folder::new();
    let program = Program::start(&folder);
    assert_eq!(program.get("/healthz").0, 503);
    let mut client = Client::<Delta>::with_clusters(program.xds).await;
    folder.cluster("a", 1000);
    client.expect_nothing().await;
    folder.commit();
    program.line("published snapshot=1 RTDS=0 SDS=0 CDS=1 EDS=1 ");
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
    program.line("ack ");
    assert_eq!(program.get("/healthz").0, 200);

    folder.cluster("b", 1000);
    fs::remove_file(folder.path().join("cds/file-a.pb")).unwrap();
    fs::remove_file(folder.path().join("eds/file-a.pb")).unwrap();
    client.expect_nothing().await;
    folder.commit();
    program.line("published snapshot=2 ");
    let response = client.expect_acked(Cluster).await;
    assert_eq!((names(&response), &response.removed_resources[..]), (vec!["b"], &["a".to_owned()][..]));
    program.line("ack ");
    folder.commit();
    assert!(program.line("published snapshot=3 ").ends_with(" unchanged"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_set_is_refused_with_every_fault_and_the_last_good_one_stays() {
    let folder = Folder::new();
    folder.cluster("a", 1000);
    folder.commit();
    let program = Program::start(&folder);
    program.line("published snapshot=1 ");

    folder.write("cds/garbage.pb", b"\xff\xff\xff");
    folder.write("cds/again.pb", &fixtures::cluster("a", 2000).encode_to_vec());
    folder.write("rds/routes.pb", &fixtures::routes("routes", ["missing"]).encode_to_vec());
    folder.commit();
    let count: usize = program.line("refused faults=").rsplit('=').next().unwrap().parse().unwrap();
    let faults: Vec<String> = (0..count).map(|_| program.line("fault ")).collect();
    for (part, what) in [
        ("cds/garbage.pb: not a Cluster: ", "a file that is no resource"),
        ("duplicate name \"a\"", "two files with one name"),
        ("unknown cluster \"missing\"", "a dangling route"),
    ] {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{what} in {faults:?}");
    }
    assert_eq!(program.get("/healthz").0, 200);
    let mut client = Client::<Delta>::with_clusters(program.xds).await;
    assert_eq!(names(&client.expect_acked(Cluster).await), ["a"]);
    program.line("ack ");

    fs::remove_file(folder.path().join("cds/garbage.pb")).unwrap();
    fs::remove_file(folder.path().join("cds/again.pb")).unwrap();
    fs::remove_file(folder.path().join("rds/routes.pb")).unwrap();
    folder.cluster("b", 1000);
    folder.commit();
    program.line("published snapshot=2 ");
    assert_eq!(names(&client.expect_acked(Cluster).await), ["b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_sigterm_sends_clients_elsewhere_and_ends_with_success() {
    let folder = Folder::new();
    folder.cluster("a", 1000);
    folder.commit();
    let mut program = Program::start(&folder);
    program.line("published ");
    let mut client = Client::<Delta>::with_clusters(program.xds).await;
    client.expect_acked(Cluster).await;
    program.line("ack ");
    program.terminate();
    program.line("stopping");
    assert_eq!(client.next().await.unwrap_err().code(), tonic::Code::Unavailable);
    program.line("stopped");
    assert!(program.wait().success());
}

#[test]
fn help_teaches() {
    let output = Command::new(binary()).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    for part in ["DIR/cds/*.pb", ".commit", "127.0.0.1:18000", "--client-ca", "SIGTERM"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}
