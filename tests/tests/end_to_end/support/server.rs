use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clairvoy_tests::{Effects, ServerConfig, SimulatedServer, SpeedClass};

/// Starts a simulated model server on a port of the system's choice.
pub(crate) fn model_server(model: &str, class: SpeedClass) -> SimulatedServer {
    SimulatedServer::start(ServerConfig {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        model: model.to_owned(),
        class,
        effects: Effects::none(),
        seed: 1,
        load_delay: Duration::ZERO,
    })
    .unwrap()
}
