//! Makes sure that there is a page to embed: a note how to build the dashboard, until it is built.

use std::path::Path;

const NOTE: &str = "<!doctype html><meta charset=utf-8><title>Clairvoy</title>\
<body style=\"font-family:system-ui;max-width:40rem;margin:4rem auto\"><h1>The dashboard is not built</h1>\
<p>Run <code>cargo xtask setup</code> in the repository and build Clairvoy again. The API works without it: \
<a href=/api/v1/state>/api/v1/state</a>.</p>";

fn main() -> std::io::Result<()> {
    let dist = Path::new("../dashboards/web/dist");
    println!("cargo::rerun-if-changed=../dashboards/web/dist");
    println!("cargo::rerun-if-changed=../migrations");
    if !dist.join("index.html").exists() {
        std::fs::create_dir_all(dist)?;
        std::fs::write(dist.join("index.html"), NOTE)?;
    }
    Ok(())
}
