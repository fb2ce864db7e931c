//! The product on one machine: Clairvoy, two Envoys, Postgres, simulated model servers and a minute worth watching.
//!
//! [`run`] starts everything, replays a recorded ramp of demand at it, slows one server down, lets webhooks add
//! servers, and prints what happened. With a number of seconds it also checks that what should happen did. Whatever it
//! started is gone when it returns, also after an error, and when it is killed.

mod api;
mod checks;
mod child;
mod claim;
mod evidence;
mod fleet;
mod journal;
mod leftovers;
mod observations;
mod options;
mod outcome;
mod ports;
mod processes;
mod scaling_log;
mod script;
mod session;
mod summary;
mod traffic;
mod world;

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::child::Child;
pub use self::options::DemoOptions;
use self::session::Session;

/// Runs the demo until its seconds are over, or until SIGINT or SIGTERM. Must run on a thread that lives as
/// long as the process, such as the main thread: the child processes are killed when it ends.
///
/// Returns failure when something that should have happened did not, or when a process outlived its stop.
///
/// # Errors
///
/// When a port is taken, a program does not start, or the fleet does not come up; the message says what to do.
pub async fn run(options: DemoOptions) -> anyhow::Result<ExitCode> {
    let (stop, at_once) = (CancellationToken::new(), CancellationToken::new());
    let signals = tokio::spawn(listen_to_signals(stop.clone(), at_once.clone())?);
    ports::check_free(&options.ports())?;
    let mut session = Session::new(options);
    let result = tokio::select! {
        result = session.run(&stop) => result,
        () = at_once.cancelled() => Err(anyhow::anyhow!("interrupted twice: everything was killed")),
    };
    let gone = if at_once.is_cancelled() { true } else { session.stop().await };
    signals.abort();
    let passed = result?;
    Ok(if passed && gone { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first signal asks for an orderly end, the second for an end at once.
fn listen_to_signals(
    stop: CancellationToken,
    at_once: CancellationToken,
) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        for token in [stop, at_once] {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            token.cancel();
        }
    })
}
