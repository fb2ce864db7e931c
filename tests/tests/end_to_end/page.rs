//! The dashboard in a real browser, fed by the real program under load.

use std::convert::Infallible;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use clairvoy_tests::{Faults, SimulatedServer, SpeedClass};
use tokio::process::Command;

use crate::support::{Chat, Load, Site, model_server};

/// The script waits up to 30 s each for the page, its first figures and changes, and a browser needs time to start.
const LONGEST: Duration = Duration::from_secs(120);

/// Slows a server down for some seconds, again and again, so that waits and with them shares move.
async fn slow_now_and_then(server: &SimulatedServer) -> Infallible {
    const SPELL: Duration = Duration::from_secs(6);
    loop {
        for slow_factor in [20.0, 1.0] {
            server.set_faults(Faults { slow_factor, ..Faults::default() }).unwrap();
            tokio::time::sleep(SPELL).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_live_data_change() {
    let servers = [(); 2].map(|()| model_server("chat", SpeedClass::Fast));
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
    let output = tokio::select! {
        output = tokio::time::timeout(LONGEST, script.output()) => output.expect("the browser hangs").unwrap(),
        never = slow_now_and_then(&servers[1]) => match never {},
    };
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    load.end().await;
    assert!(clairvoy.stop().success());
}
