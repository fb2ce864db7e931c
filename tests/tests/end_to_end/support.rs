//! What the tests stand on: a site with its files and ports, the programs as processes, clients, and load.

mod certificates;
mod clairvoy;
mod class;
mod dns;
mod envoy;
mod http;
mod load;
mod otlp;
mod process;
mod programs;
mod server;
mod site;
mod tunnel;
mod wait;

pub(crate) use certificates::Authority;
pub(crate) use clairvoy::{Clairvoy, backend};
pub(crate) use class::{Ask, Class, Sign};
pub(crate) use dns::Dns;
pub(crate) use envoy::{Envoy, Host, bootstrap, validate};
pub(crate) use http::{Chat, client, client_at, content_type, error_of, keeping_client};
pub(crate) use load::Load;
pub(crate) use otlp::otlp;
pub(crate) use process::{Process, processes_in, send_signal};
pub(crate) use programs::prometheus_program;
pub(crate) use server::{model_server, model_server_at};
pub(crate) use site::{Site, free_address};
pub(crate) use tunnel::Tunnel;
pub(crate) use wait::{holds_for, until};
