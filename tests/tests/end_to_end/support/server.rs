use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use clairvoy_tests::{Effects, ServerConfig, SimulatedServer, SpeedClass};

/// Starts a simulated model server on a port of the system's choice.
pub(crate) fn model_server(model: &str, class: SpeedClass) -> SimulatedServer {
    model_server_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), model, class)
}

/// One at an address, such as that of one that was killed.
pub(crate) fn model_server_at(listen: SocketAddr, model: &str, class: SpeedClass) -> SimulatedServer {
    SimulatedServer::start(ServerConfig {
        listen,
        model: model.to_owned(),
        class,
        effects: Effects::none(),
        seed: 1,
        load_delay: Duration::ZERO,
    })
    .unwrap()
}
