//! The player against a simulated server.

use tokio::time::sleep;

use super::*;
use crate::{Effects, Faults, ServerConfig, SimulatedServer, SpeedClass};

const MODEL: &str = "chat";

fn server() -> SimulatedServer {
    SimulatedServer::start(ServerConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        model: MODEL.to_owned(),
        class: SpeedClass::Fast,
        effects: Effects::none(),
        seed: 1,
        load_delay: Duration::ZERO,
    })
    .unwrap()
}

fn player(targets: &[SocketAddr], rps: f64, max_in_flight: usize) -> Player {
    let config = PlayerConfig {
        targets: targets.to_vec(),
        seed: 3,
        max_in_flight,
        request_timeout: Duration::from_secs(60),
    };
    let sizes: Arc<[RequestSize]> = [RequestSize { prompt_tokens: 50, output_tokens: 5 }].into();
    let load = ModelLoad { model: MODEL.to_owned(), demand: Arc::new(rps), sizes };
    Player::start(&config, vec![load]).unwrap()
}

async fn until(player: &Player, what: impl Fn(&ModelStatistics) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what(&player.statistics()[0].1) {
        assert!(Instant::now() < deadline, "{:?}", player.statistics());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn requests_go_to_every_target_and_are_measured() {
    let servers = [server(), server()];
    let player = player(&[servers[0].address(), servers[1].address()], 100.0, 1000);
    until(&player, |statistics| statistics.sent >= 40).await;
    let statistics = player.stop(Duration::from_secs(30)).await.remove(0).1;
    assert_eq!((statistics.failures.total(), statistics.in_flight(), statistics.over_the_cap), (0, 0, 0));
    assert_eq!(statistics.output_tokens, 5 * statistics.completed);
    assert_eq!(statistics.ttft.count(), statistics.completed);
    assert!(statistics.ttft.quantile_seconds(0.5) <= statistics.duration.quantile_seconds(0.5));
    let taken = servers.map(|server| server.state().engine.totals.submitted);
    assert_eq!(taken.iter().sum::<u64>(), statistics.sent);
    assert!(taken[0].abs_diff(taken[1]) <= 1, "in turn: {taken:?}");
}

#[tokio::test]
async fn failures_are_told_apart() {
    let server = server();
    server.set_faults(Faults { error_rate: 1.0, ..Faults::default() }).unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let player = player(&[server.address(), closed], 100.0, 1000);
    until(&player, |statistics| statistics.failures.total() >= 10).await;
    let failures = player.stop(Duration::from_secs(30)).await.remove(0).1.failures;
    assert!(failures.connect > 0 && failures.status.contains_key(&500), "{failures}");
    assert_eq!((failures.reset, failures.cut_stream, failures.timeout), (0, 0, 0));
}

#[tokio::test]
async fn a_stream_that_a_dying_server_cuts_is_no_success() {
    let server = server();
    server.set_faults(Faults { slow_factor: 100.0, ..Faults::default() }).unwrap();
    let player = player(&[server.address()], 100.0, 1000);
    until(&player, |statistics| statistics.sent > 20).await;
    server.kill();
    until(&player, |statistics| statistics.failures.total() > 20).await;
    let statistics = player.stop(Duration::from_secs(30)).await.remove(0).1;
    assert!(statistics.failures.reset + statistics.failures.cut_stream > 0, "{}", statistics.failures);
}

#[tokio::test]
async fn arrivals_beyond_the_cap_are_counted_and_not_sent() {
    let server = server();
    server.set_faults(Faults { hang: true, ..Faults::default() }).unwrap();
    let player = player(&[server.address()], 200.0, 4);
    until(&player, |statistics| statistics.over_the_cap >= 10).await;
    let statistics = player.stop(Duration::ZERO).await.remove(0).1;
    assert_eq!((statistics.sent, statistics.in_flight()), (4, 4));
}
