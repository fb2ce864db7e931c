//! The backends: one listener on all loopback addresses, one page a second for all of them.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::page::{Kind, page};
use crate::process::cpu_seconds;

/// Role `server`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which page to show
    #[arg(long)]
    page: Kind,
}

type Answer = Arc<ArcSwap<Vec<u8>>>;

pub(crate) fn run(args: &Args) -> Result<()> {
    let kind = args.page;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("0.0.0.0:0").await.context("cannot listen")?;
        let page = page(kind, 1);
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        println!("{} {} {series}", listener.local_addr()?.port(), page.len());
        let answer: Answer = Arc::new(ArcSwap::from_pointee(answer(&page)));
        let clock = tokio::spawn(keep_current(kind, Arc::clone(&answer)));
        let serve = tokio::spawn(accept(listener, answer));
        // The orchestrator closes it at the end.
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        clock.abort();
        serve.abort();
        println!("{}", cpu_seconds());
        Ok(())
    })
}

async fn keep_current(kind: Kind, shown: Answer) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for seconds in 1.. {
        ticks.tick().await;
        shown.store(Arc::new(answer(&page(kind, seconds))));
    }
}

fn answer(page: &str) -> Vec<u8> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\ncontent-length: ";
    format!("{head}{}\r\n\r\n{page}", page.len()).into_bytes()
}

async fn accept(listener: TcpListener, answer: Answer) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(serve(connection, Arc::clone(&answer)));
    }
}

/// Answers each request of a connection; requests have no body, so each ends with an empty line.
async fn serve(mut connection: TcpStream, answer: Answer) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut request = Vec::with_capacity(1024);
    loop {
        if connection.read_buf(&mut request).await? == 0 || request.len() > 16 * 1024 {
            return Ok(());
        }
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            let answer = answer.load_full();
            connection.write_all(&answer).await?;
        }
    }
}
