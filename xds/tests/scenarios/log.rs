//! What operators read: F6.

use std::io;
use std::sync::{Arc, Mutex};

use clairvoy_xds::ResourceType::ClusterLoadAssignment;
use clairvoy_xds::SyncState;
use serde_json::Value;
use tracing::subscriber;

use crate::harness::{Client, Delta, Sotw, Variant, eventually, serve, server, settled, snapshot};

/// Log lines of this thread, as JSON.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn with(&self, message: &str) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["fields"]["message"] == message).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn a_refusal_is_logged<V: Variant>() {
    let lines = Lines::default();
    let writer = lines.clone();
    let _guard = subscriber::set_default(
        tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish(),
    );
    let server = server();
    server.publish("all", snapshot(&[("a", 1, 1), ("b", 1, 1)], &["a"]));
    let mut client: Client<V> = settled(&server, serve(&server).await, &["a", "b"]).await;
    server.publish("all", snapshot(&[("a", 1, 2), ("b", 1, 1)], &["a"]));
    let response = client.expect(ClusterLoadAssignment).await;
    client.nack(&response, "no such thing").await;
    eventually("seen", || server.clients()[0].sync == SyncState::Nacked).await;
    let [line] = &lines.with("client refused a response")[..] else { panic!("one line") };
    assert_eq!(line["level"], "WARN");
    let field = |name: &str| line["fields"][name].as_str().unwrap_or_default();
    assert_eq!(
        [field("xds.type"), field("node.id"), field("resources"), field("error")],
        ["EDS", "proxy", "[\"a\"]", "no such thing"]
    );
}

#[tokio::test]
async fn f6_sotw_a_refusal_is_logged() {
    a_refusal_is_logged::<Sotw>().await;
}

#[tokio::test]
async fn f6_delta_a_refusal_is_logged() {
    a_refusal_is_logged::<Delta>().await;
}
