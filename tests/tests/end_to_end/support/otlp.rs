use std::net::SocketAddr;
use std::process::Command;

use super::process::Process;
use super::programs::opentelemetry;
use super::site::Site;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/end_to_end/push/send_otlp.py");

/// A server with the OpenTelemetry SDK, which sends the depth of its queue each second.
pub(crate) fn otlp(
    site: &Site,
    protocol: &str,
    endpoint: &str,
    instance: &SocketAddr,
    queue_depth: u32,
    environment: &[(String, String)],
) -> Process {
    let mut command = Command::new("python3");
    command.args([SCRIPT, protocol, endpoint, &instance.to_string(), &queue_depth.to_string()]);
    command.env("PYTHONPATH", opentelemetry()).env("PYTHONDONTWRITEBYTECODE", "1");
    // Python's HTTP client prefers these to what the exporter is told.
    command.env_remove("REQUESTS_CA_BUNDLE").env_remove("CURL_CA_BUNDLE");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    Process::spawn("the OpenTelemetry SDK", &mut command, site.path().join(format!("otlp-{protocol}.log")))
}
