//! Looks whether the ports are free before anything starts.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
};

/// Checks that each address can be bound, and that no two flags name the same one.
///
/// # Errors
///
/// Names every address that is taken, with the flag that changes it.
pub(super) fn check_free(ports: &[(&'static str, SocketAddr)]) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    let mut flags: HashMap<SocketAddr, &str> = HashMap::new();
    for (flag, address) in ports {
        if let Some(other) = flags.insert(*address, flag) {
            wrong.push(format!("{address} is asked for twice: change {other} or {flag}"));
        } else if let Err(error) = TcpListener::bind(address) {
            wrong.push(format!("{address} cannot be used ({error}): choose another with {flag}"));
        }
    }
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let message = check_free(&[("--api-port", address)]).unwrap_err().to_string();
        assert!(message.contains(&address.to_string()) && message.contains("--api-port"), "{message}");
        drop(taken);
        check_free(&[("--api-port", address)]).unwrap();
    }

    #[test]
    fn one_port_for_two_purposes_is_named() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let message = check_free(&[("--api-port", free), ("--xds-port", free)]).unwrap_err().to_string();
        assert!(message.contains("--api-port or --xds-port"), "{message}");
    }
}
