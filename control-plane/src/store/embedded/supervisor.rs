use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::EmbeddedState;
use super::error::EmbeddedError;
use super::server::{Plan, Server, greet};

/// Recovery after a crash replays at most a few minutes of journal.
const START_DEADLINE: Duration = Duration::from_secs(120);
/// How often a running server is looked at.
const WATCH: Duration = Duration::from_millis(100);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A server that lived this long is given the short pause again.
const HEALTHY: Duration = Duration::from_secs(60);

/// The only order: stop. A closed channel means the same.
#[derive(Debug)]
pub(super) struct Stop;

/// Keeps the server running until it is told to stop. Its thread must live as long as the server, which gets SIGINT
/// when the thread ends.
pub(super) fn supervise(
    plan: &Plan,
    orders: &Receiver<Stop>,
    state: &watch::Sender<EmbeddedState>,
    started: &SyncSender<Result<(), EmbeddedError>>,
) {
    let mut server = match launch(plan, orders) {
        Ok(server) => server,
        Err(error) => {
            plan.layout.clean_up();
            // The receiver only goes away with the whole handle.
            let _ = started.send(Err(error));
            return;
        }
    };
    state.send_replace(EmbeddedState::Running { pid: server.pid() });
    let _ = started.send(Ok(()));
    let mut pause = FIRST_PAUSE;
    loop {
        let since = Instant::now();
        match watch_over(&mut server, orders) {
            None => break server.stop(),
            Some(reason) => {
                tracing::error!(reason, "Postgres ended; starting it again");
                state.send_replace(EmbeddedState::Restarting { reason });
            }
        }
        if since.elapsed() >= HEALTHY {
            pause = FIRST_PAUSE;
        }
        let Some(next) = relaunch(plan, orders, state, &mut pause) else { break };
        server = next;
        state.send_replace(EmbeddedState::Running { pid: server.pid() });
    }
    state.send_replace(EmbeddedState::Stopped);
    plan.layout.clean_up();
}

/// Waits for the server to end, and says how; `None` when the order to stop came first.
fn watch_over(server: &mut Server, orders: &Receiver<Stop>) -> Option<String> {
    loop {
        if let Some(status) = server.ended() {
            return Some(format!("{status}; the end of its log: {}", server.log_end()));
        }
        if told_to_stop(orders, WATCH) {
            return None;
        }
    }
}

/// Tries until the server runs again; `None` when the order to stop came first.
fn relaunch(
    plan: &Plan,
    orders: &Receiver<Stop>,
    state: &watch::Sender<EmbeddedState>,
    pause: &mut Duration,
) -> Option<Server> {
    loop {
        if told_to_stop(orders, *pause) {
            return None;
        }
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        match launch(plan, orders) {
            Ok(server) => return Some(server),
            Err(EmbeddedError::Stopped) => return None,
            Err(error) => {
                tracing::error!(%error, "cannot start Postgres again");
                state.send_replace(EmbeddedState::Restarting { reason: error.to_string() });
            }
        }
    }
}

/// Starts the server and waits until it answers.
fn launch(plan: &Plan, orders: &Receiver<Stop>) -> Result<Server, EmbeddedError> {
    plan.layout.settle()?;
    let mut server = plan.spawn()?;
    let answer = wait_until_ready(plan, &mut server, orders).and_then(|()| greet(&plan.connect_options()));
    match answer {
        Ok(()) => Ok(server),
        Err(error) => {
            server.stop();
            Err(error)
        }
    }
}

fn wait_until_ready(plan: &Plan, server: &mut Server, orders: &Receiver<Stop>) -> Result<(), EmbeddedError> {
    let deadline = Instant::now() + START_DEADLINE;
    while !server.is_ready(&plan.layout.data) {
        if let Some(status) = server.ended() {
            return Err(EmbeddedError::Exited { status: status.to_string(), log: server.log_end() });
        }
        if Instant::now() >= deadline {
            return Err(EmbeddedError::NotReady { seconds: START_DEADLINE.as_secs(), log: server.log_end() });
        }
        if told_to_stop(orders, Duration::from_millis(10)) {
            return Err(EmbeddedError::Stopped);
        }
    }
    Ok(())
}

fn told_to_stop(orders: &Receiver<Stop>, within: Duration) -> bool {
    !matches!(orders.recv_timeout(within), Err(RecvTimeoutError::Timeout))
}
