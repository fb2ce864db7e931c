use std::path::PathBuf;

use garde::Path;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use super::validate::Fault;

/// TLS (1.2 and 1.3) on an address that is listened on. The files are PEM, and are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// File with the server's certificate, then those that sign it, up to but without the root.
    pub certificate: PathBuf,
    /// File with the key of the first certificate.
    pub private_key: PathBuf,
    /// File with the certificates of those who sign the clients' certificates. If given, every client has to show one.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
}

/// A sender with a certificate, and the pools that it may write to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolClient {
    /// A name in its certificate (subject alternative name): a DNS name, or a URI such as `spiffe://example/h100-a`.
    pub san: String,
    /// The pools.
    pub pools: Vec<String>,
}

/// Envoys with a certificate, and the gateways whose resources they may have.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GatewayClient {
    /// A name in their certificate (subject alternative name): a DNS name, or a URI such as `spiffe://example/edge`.
    pub san: String,
    /// The gateways. Left out: all.
    #[serde(default)]
    pub gateways: Option<Vec<String>>,
}

/// Whether a name that is configured is among those in a client's certificate. Names of DNS know no case.
pub fn is_named(san: &str, identities: &[String]) -> bool {
    let is_dns = !san.contains(':');
    identities.iter().any(|shown| shown == san || (is_dns && shown.eq_ignore_ascii_case(san)))
}

impl Config {
    /// Addresses that other machines reach and that take tokens without TLS: what to log at the start.
    pub fn clear_text_warnings(&self) -> Vec<String> {
        let push = &self.telemetry.push;
        let listen = [
            ("listen.api", self.listen.api, "listen.api_tls", self.listen.api_tls.is_some()),
            ("listen.xds", self.listen.xds, "listen.xds_tls", self.listen.xds_tls.is_some()),
        ];
        let pushed = push.addresses().map(|(field, address)| {
            let field = if field == "http" { "telemetry.push.http" } else { "telemetry.push.otlp_grpc" };
            (field, address, "telemetry.push.tls", push.tls.is_some())
        });
        listen
            .into_iter()
            .chain(pushed)
            .filter(|(_, address, _, has_tls)| !address.ip().is_loopback() && !has_tls)
            .map(|(field, address, remedy, _)| {
                format!(
                    "{field} ({address}) takes tokens and data in clear text, for everyone on the way to read: set {remedy}, \
                     or put something that does TLS before it"
                )
            })
            .collect()
    }
}

/// Checks the names of clients, which need a listener that asks for certificates.
pub(super) fn check_sans<'a>(
    path: &Path,
    sans: impl Iterator<Item = &'a str>,
    tls: (&str, Option<&ListenerTls>),
    fault: &mut Fault<'_>,
) {
    let (field, tls) = tls;
    let mut seen = std::collections::BTreeSet::new();
    for (index, san) in sans.enumerate() {
        if index == 0 && tls.and_then(|tls| tls.client_ca.as_ref()).is_none() {
            fault(path.clone(), format!("nobody shows a certificate: set `{field}.client_ca`"));
        }
        let path = path.join(index).join("san");
        if san.is_empty() || san.contains('*') || san.contains(char::is_whitespace) {
            fault(path, format!("{san:?} is no name in a certificate: give one DNS name or URI, whole"));
        } else if !seen.insert(san) {
            fault(path, format!("`{san}` is there twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn a_name_is_compared_whole() {
        let shown = ["spiffe://example/A".to_owned(), "Edge.example".to_owned()];
        for (san, is_known) in [
            ("spiffe://example/A", true),
            ("spiffe://example/a", false),
            ("spiffe://example/", false),
            ("edge.EXAMPLE", true),
            ("example", false),
        ] {
            assert_eq!(is_named(san, &shown), is_known, "{san}");
        }
    }

    const FILES: &str = "certificate: a.pem, private_key: a.key";

    #[test]
    fn bound_certificates_stand_in_place_of_tokens_beyond_loopback() {
        let push = |tls: &str, clients: &str| {
            parse(&format!(
                "telemetry: {{ push: {{ http: \"0.0.0.0:4318\", {tls} clients: [{clients}] }} }}\n\
                 models: [{{ name: m, pools: [p, q] }}]\n\
                 pools: [{{ name: p, telemetry: push }}, {{ name: q }}]\n"
            ))
        };
        let mutual = format!("tls: {{ {FILES}, client_ca: ca.pem }},");
        push(&mutual, "{ san: a.example, pools: [p] }").unwrap();
        for (tls, clients, expected) in [
            (mutual.as_str(), "", "reachable from other machines"),
            ("", "{ san: a.example, pools: [p] }", "telemetry.push.tls.client_ca"),
            (&format!("tls: {{ {FILES} }},"), "{ san: a.example, pools: [p] }", "tls.client_ca"),
            (&mutual, "{ san: a.example, pools: [q] }", "is scraped"),
            (&mutual, "{ san: a.example, pools: [r] }", "no pool `r`"),
            (&mutual, "{ san: a.example, pools: [] }", "for no pool"),
            (&mutual, "{ san: \"*.example\", pools: [p] }", "no name in a certificate"),
            (&mutual, "{ san: a, pools: [p] }, { san: a, pools: [p] }", "there twice"),
        ] {
            let faults = push(tls, clients).unwrap_err();
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
        let xds = |keys: &str| parse(&format!("listen: {{ xds: \"0.0.0.0:18000\", {keys} }}\n"));
        let config =
            xds(&format!("xds_tls: {{ {FILES}, client_ca: c.pem }}, xds_clients: [{{ san: a }}]")).unwrap();
        assert!(config.clear_text_warnings().is_empty());
        for (keys, expected) in [
            (format!("xds_tls: {{ {FILES}, client_ca: c.pem }}"), "reachable from other machines"),
            ("xds_clients: [{ san: a }]".to_owned(), "listen.xds_tls.client_ca"),
            (
                format!(
                    "xds_tls: {{ {FILES}, client_ca: c.pem }}, xds_clients: [{{ san: a, gateways: [x] }}]"
                ),
                "no gateway `x`",
            ),
        ] {
            let faults = xds(&keys).unwrap_err();
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
    }

    #[test]
    fn tokens_in_clear_text_are_told() {
        let warnings = |keys: &str| {
            parse(&format!("listen: {{ token_env: T, {keys} }}\n")).unwrap().clear_text_warnings()
        };
        assert!(warnings("").is_empty(), "loopback");
        let found = warnings(&format!("api: 0.0.0.0:1, xds: 0.0.0.0:2, api_tls: {{ {FILES} }}"));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("listen.xds (0.0.0.0:2)") && found[0].contains("listen.xds_tls"));
    }
}
