use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use clairvoy::view::{BackendView, ProxyState, ProxyView, State};
use reqwest::{Method, RequestBuilder, StatusCode};
use rustix::process::Signal;
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::process::{Process, processes_in, send_signal};
use super::site::Site;
use super::{client, until};

/// Longest time for a start, with a new database on a busy machine.
const START_SECONDS: u64 = 60;
const STOP: Duration = Duration::from_secs(20);

/// `clairvoy serve` as a process. Dropping it stops it as a user would.
#[derive(Debug)]
pub(crate) struct Clairvoy {
    process: Process,
    url: String,
    token: Option<String>,
    state_dir: PathBuf,
}

impl Clairvoy {
    pub(super) fn launch(site: &Site) -> Self {
        let config = site.config_file();
        let mut command = site.command(&["serve", "--config", config.to_str().unwrap()]);
        let process = Process::spawn("clairvoy", &mut command, site.path().join("clairvoy.log"));
        let url = format!("http://{}", site.api);
        Self { process, url, token: None, state_dir: site.state_dir() }
    }

    /// Has all requests show a token.
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) async fn wait_until_ready(&mut self) {
        until("clairvoy is ready", START_SECONDS, async || {
            assert!(self.process.ended().is_none(), "clairvoy has ended:\n{}", self.log());
            match self.request(Method::GET, "/readyz").send().await {
                Ok(answer) if answer.status() == StatusCode::OK => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it without a chance to do anything.
    pub(crate) fn kill(mut self) {
        self.process.kill();
    }

    /// Ends it by SIGTERM.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.terminate().unwrap_or_else(|| panic!("clairvoy does not stop:\n{}", self.log()))
    }

    fn terminate(&mut self) -> Option<ExitStatus> {
        if self.process.ended().is_none() {
            send_signal(self.process.pid(), Signal::TERM);
        }
        self.process.wait(STOP)
    }

    /// A request to the API.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = client().request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The live state.
    pub(crate) async fn state(&self) -> Result<State, String> {
        let answer = self.request(Method::GET, "/api/v1/state").send().await;
        let answer = answer.and_then(reqwest::Response::error_for_status).map_err(|e| format!("{e:?}"))?;
        answer.json().await.map_err(|error| format!("{error:?}"))
    }

    /// The page of its own metrics.
    pub(crate) async fn metrics(&self) -> String {
        let answer = self.request(Method::GET, "/metrics").send().await.unwrap();
        answer.error_for_status().unwrap().text().await.unwrap()
    }

    /// Changes the backends of a pool, and returns the status of the answer.
    pub(crate) async fn register(&self, pool: &str, address: impl ToString) -> StatusCode {
        let body = serde_json::json!({ "address": address.to_string() });
        let request = self.request(Method::POST, &format!("/api/v1/pools/{pool}/backends")).json(&body);
        request.send().await.unwrap().status()
    }

    pub(crate) async fn drain(&self, pool: &str, address: impl ToString) -> StatusCode {
        let path = format!("/api/v1/pools/{pool}/backends/{}/drain", address.to_string());
        self.request(Method::POST, &path).send().await.unwrap().status()
    }

    pub(crate) async fn remove(&self, pool: &str, address: impl ToString) -> StatusCode {
        let path = format!("/api/v1/pools/{pool}/backends/{}", address.to_string());
        self.request(Method::DELETE, &path).send().await.unwrap().status()
    }

    /// Waits until the state is as wanted, and returns it.
    pub(crate) async fn state_where(&self, what: &str, wanted: impl Fn(&State) -> bool) -> State {
        until(what, 60, async || {
            let state = self.state().await?;
            if wanted(&state) { Ok(state) } else { Err(format!("{state:#?}")) }
        })
        .await
    }

    /// Waits until its one Envoy has taken the newest state.
    pub(crate) async fn in_sync(&self) -> ProxyView {
        let synced = |state: &State| {
            state.proxies.len() == 1 && state.proxies.iter().all(|proxy| proxy.state == ProxyState::InSync)
        };
        self.state_where("Envoy is in sync", synced).await.proxies.remove(0)
    }

    /// Waits until an event with these words has happened.
    pub(crate) async fn event(&self, words: &str) {
        let said = |state: &State| state.events.iter().any(|event| event.message.contains(words));
        self.state_where(&format!("an event says `{words}`"), said).await;
    }

    /// Where its Postgres keeps the data.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.state_dir.join("postgres/data")
    }

    /// The process id of its Postgres.
    pub(crate) fn postmaster(&self) -> u32 {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap();
        file.lines().next().unwrap().parse().unwrap()
    }

    /// Stops all processes of its Postgres, those that serve its connections, too, until what is returned is dropped.
    pub(crate) fn without_database(&self) -> AbsentDatabase {
        // First the one that would start others.
        send_signal(self.postmaster(), Signal::STOP);
        let absent = AbsentDatabase { data_dir: self.data_dir() };
        absent.send(Signal::STOP);
        absent
    }

    /// Rows of telemetry in its Postgres, by backend.
    pub(crate) async fn rows_by_backend(&self) -> Result<BTreeMap<String, i64>, sqlx::Error> {
        let mut connection = self.database().await?;
        let query = "SELECT address, count(*) FROM backend_sample JOIN backend ON id = backend_id GROUP BY 1";
        let rows = sqlx::query_as(query).fetch_all(&mut connection).await?;
        connection.close().await?;
        Ok(rows.into_iter().collect())
    }

    /// Rows of telemetry in its Postgres.
    pub(crate) async fn rows(&self) -> Result<i64, sqlx::Error> {
        let mut connection = self.database().await?;
        let rows =
            sqlx::query_scalar("SELECT count(*) FROM backend_sample").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(rows)
    }

    /// A connection to its Postgres.
    pub(crate) async fn database(&self) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(self.state_dir.join("postgres/run"))
            .username("postgres")
            .database("clairvoy");
        PgConnection::connect_with(&options).await
    }
}

impl Drop for Clairvoy {
    fn drop(&mut self) {
        let _ = self.terminate();
    }
}

/// A Postgres that stands still. Dropping this lets it go on: a test that fails would leave it behind.
#[derive(Debug)]
pub(crate) struct AbsentDatabase {
    data_dir: PathBuf,
}

impl AbsentDatabase {
    fn send(&self, signal: Signal) {
        processes_in(&self.data_dir).into_iter().for_each(|process| send_signal(process, signal));
    }
}

impl Drop for AbsentDatabase {
    fn drop(&mut self) {
        self.send(Signal::CONT);
    }
}

/// One backend of the state.
pub(crate) fn backend(state: &State, address: impl ToString) -> Option<&BackendView> {
    let address = address.to_string();
    state.backends.iter().find(|backend| backend.address == address)
}
