use std::str::FromStr;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::StoreError;

/// The oldest server that has all we use.
const OLDEST_MAJOR: u32 = 15;
/// One attempt may take this long, so that a silent host does not use up the whole time.
const ATTEMPT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long a query waits for a free connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a connection that comes back to the pool may take to answer.
const RELEASE: Duration = Duration::from_secs(5);
/// What every connection asks of the server, unless the URL says otherwise: no statement without an end, and no locks
/// of a client that is gone.
const SERVER_SETTINGS: [(&str, &str); 6] = [
    ("statement_timeout", "60s"),
    ("idle_in_transaction_session_timeout", "60s"),
    ("tcp_keepalives_idle", "30"),
    ("tcp_keepalives_interval", "10"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "60s"),
];

/// Reads the configured URL.
pub(super) fn parse_url(url: &str) -> Result<PgConnectOptions, StoreError> {
    // The parser takes any scheme, and fills in what is missing from the environment.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        let reason = "the scheme is not postgres";
        return Err(StoreError::InvalidUrl(sqlx::Error::Configuration(reason.into())));
    }
    PgConnectOptions::from_str(url)
        .map(|options| options.application_name("clairvoy"))
        .map_err(StoreError::InvalidUrl)
}

/// Adds what every connection asks of the server.
pub(super) fn tuned(options: PgConnectOptions) -> PgConnectOptions {
    let given = options.get_options().unwrap_or_default().to_owned();
    options.options(SERVER_SETTINGS.into_iter().filter(|(name, _)| !given.contains(name)))
}

/// Waits for a step of some work, but not for ever: over a connection that broke unseen no answer comes.
pub(super) async fn bounded<T>(
    limit: Duration,
    step: BoxFuture<'_, Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, step).await.unwrap_or_else(|_| {
        let message = format!("no answer within {} s", limit.as_secs_f64());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, message)))
    })
}

/// Connects, trying again for `patience` while the server is away or starting, and returns a pool.
pub(super) async fn connect(
    options: &PgConnectOptions,
    patience: Duration,
    max_connections: u32,
) -> Result<PgPool, StoreError> {
    let begun = Instant::now();
    let deadline = begun + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let attempt = timeout_at(deadline.min(Instant::now() + ATTEMPT), check_server(options));
        let error = match attempt.await {
            Ok(Ok(())) => break,
            Ok(Err(StoreError::Query { source, .. })) if is_passing(&source) => source,
            Ok(Err(StoreError::Query { source, .. })) => {
                return Err(StoreError::Refused { target: target(options), source });
            }
            Ok(Err(other)) => return Err(other),
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        };
        if Instant::now() + pause >= deadline {
            let seconds = begun.elapsed().as_secs_f64();
            return Err(StoreError::Unreachable { target: target(options), seconds, source: error });
        }
        tracing::warn!(database = target(options), %error, "the database does not answer yet; trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE)
        // The pool waits for an answer without an end, and a place in it would be lost with a broken connection.
        .after_release(|connection, _| {
            Box::pin(async move { bounded(RELEASE, Box::pin(connection.ping())).await.map(|()| true) })
        })
        .connect_lazy_with(options.clone()))
}

async fn check_server(options: &PgConnectOptions) -> Result<(), StoreError> {
    let failed = StoreError::query("connect to the database");
    let ask = async {
        let mut connection = PgConnection::connect_with(options).await?;
        let number: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::integer")
            .fetch_one(&mut connection)
            .await?;
        let version: String =
            sqlx::query_scalar("SELECT current_setting('server_version')").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok((number, version))
    };
    let (number, version) = ask.await.map_err(failed)?;
    if u32::try_from(number / 10_000).is_ok_and(|major| major >= OLDEST_MAJOR) {
        return Ok(());
    }
    Err(StoreError::TooOld { version, needed: OLDEST_MAJOR })
}

/// Returns whether an error may go away by itself: no answer, or a server that starts, stops or is full.
pub(super) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // Connection failures, too little room, and an operator at work.
            code.starts_with("08") || code.starts_with("53") || code.starts_with("57P")
        }),
        _ => false,
    }
}

/// Names the server without its credentials.
pub(super) fn target(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{}/{database}", socket.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_hide_credentials() {
        let options = parse_url("postgres://anna:hunter2@db.example:6543/fleet").unwrap();
        assert_eq!(target(&options), "db.example:6543/fleet");
    }

    #[test]
    fn the_url_may_set_its_own_timeouts() {
        let plain = tuned(parse_url("postgres://h/d").unwrap());
        assert!(plain.get_options().unwrap().contains("-c statement_timeout=60s"));
        let own = tuned(parse_url("postgres://h/d?options[statement_timeout]=5s").unwrap());
        let options = own.get_options().unwrap();
        assert_eq!(options.matches("statement_timeout").count(), 1, "{options}");
        assert!(options.contains("tcp_user_timeout"), "{options}");
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_an_error_that_passes() {
        let never = Box::pin(std::future::pending::<Result<(), _>>());
        let error = bounded(Duration::from_millis(10), never).await.unwrap_err();
        assert!(is_passing(&error));
        assert!(error.to_string().contains("no answer within 0.01 s"), "{error}");
    }

    #[test]
    fn bad_urls_are_refused_without_being_repeated() {
        for url in ["mysql://u:hunter2@h/d", "hunter2", "postgres://u:hunter2@h:port/d"] {
            let error = parse_url(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
