//! The dashboard in a real browser, fed by the real program under load.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clairvoy_tests::SpeedClass;
use tokio::process::Command;

use crate::support::{Chat, Load, Site, model_server};

/// The script waits 30 s for changes, and a browser needs some seconds to start on a busy machine.
const LONGEST: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_live_data_change() {
    // Of unlike speed, so that waits and with them shares move.
    let servers = [SpeedClass::Fast, SpeedClass::Slow].map(|class| model_server("chat", class));
    let site = Site::new();
    let backends: Vec<String> = servers.iter().map(|server| format!("\"{}\"", server.address())).collect();
    site.configure(&format!(
        "models:\n  - {{ name: chat, pools: [a] }}\npools:\n  - {{ name: a, backends: [{}] }}\n",
        backends.join(", ")
    ));
    let clairvoy = site.serve().await;
    let _envoy = site.envoy().await;
    let load = Load::start(Chat::new(site.gateway, "chat", 200), 12.0);

    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/web");
    assert!(
        web.join("node_modules/playwright-core").exists() && web.join("dist/assets").exists(),
        "the dashboard is not built: run `cargo xtask setup`"
    );
    let node = std::env::var_os("CLAIRVOY_NODE").unwrap_or_else(|| "node".into());
    let mut script = Command::new(node);
    script.arg("e2e/live.mjs").arg(format!("http://{}/", site.api)).current_dir(&web);
    script.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, script.output()).await.expect("the browser hangs").unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    load.end().await;
    assert!(clairvoy.stop().success());
}
