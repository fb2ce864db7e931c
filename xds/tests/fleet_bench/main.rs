//! Tests of the parts of the benchmark that compute: reading responses, requests, accounts, statistics.

#![expect(dead_code, reason = "the roles and the orchestrator, which use the rest, belong to the benchmark")]

#[path = "../../benches/fleet/client/ledger.rs"]
mod ledger;
#[path = "../../benches/fleet/process.rs"]
mod process;
#[path = "../../benches/fleet/protocol.rs"]
mod protocol;
#[path = "../../benches/fleet/requests.rs"]
mod requests;
#[path = "../../benches/fleet/resources.rs"]
mod resources;
#[path = "../../benches/fleet/stats.rs"]
mod stats;
#[path = "../../benches/fleet/wire.rs"]
mod wire;

#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod requests_tests;
#[cfg(test)]
mod resources_tests;
#[cfg(test)]
mod stats_tests;
#[cfg(test)]
mod wire_tests;
