use std::time::Duration;

use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(50);

/// Asks until there is an answer; fails with what was missing last when there is none within `seconds`.
pub(crate) async fn until<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        match ask().await {
            Ok(found) => return found,
            Err(missing) => assert!(Instant::now() < deadline, "not within {seconds} s: {what}; {missing}"),
        }
        sleep(PAUSE).await;
    }
}

/// Asks for a while, and fails as soon as the answer is bad: for what must not happen.
pub(crate) async fn holds_for(what: &str, seconds: f64, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    while Instant::now() < end {
        if let Err(broken) = ask().await {
            panic!("{what}: {broken}");
        }
        sleep(PAUSE).await;
    }
}
