use std::path::{Path, PathBuf};

use garde::Validate as _;
use thiserror::Error;

use super::{Config, document::Document};

/// Files beyond this are refused unread; thousands of backends fit in it.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Why a configuration file was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("{path} has {bytes} bytes, more than {MAX_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file has faults; the text shows each with its line.
    #[error("{path} is not valid:\n{faults}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Each fault with line and snippet.
        faults: String,
    },
}

/// Reads and checks a configuration file.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), bytes });
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    parse(&text).map_err(|faults| {
        let faults = faults.replace("<input>", &path.display().to_string());
        ConfigError::Invalid { path: path.to_owned(), faults }
    })
}

/// Parses and checks the text of a configuration file; the error lists every fault with line and snippet.
pub fn parse(text: &str) -> Result<Config, String> {
    let document = serde_saphyr::from_str_valid::<Document>(text).map_err(|error| error.to_string())?;
    document.into_config().map_err(|error| error.to_string())
}

/// Checks a configuration that was changed after it was read, as by overrides of the environment.
pub fn check(config: &Config) -> Result<(), String> {
    config.validate().map_err(|faults| faults.to_string())
}

#[cfg(test)]
mod tests {
    use super::parse;

    const GOOD: &str = r#"
models:
  - { name: chat, pools: [a] }
pools:
  - { name: a, backends: ["127.0.0.1:9001"], gpu_metrics: same }
"#;

    #[test]
    fn a_short_file_gets_defaults() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.listen.api.to_string(), "127.0.0.1:8080");
        assert_eq!(config.gateways()[0].listen.port(), 10000);
        assert_eq!(config.forecast.horizons.len(), 7);
    }

    #[test]
    fn every_fault_is_reported_at_once_with_its_line() {
        let text = r#"
listen: { api: 0.0.0.0:8080 }
models:
  - { name: chat, pools: [a, nowhere] }
  - { name: chat, pools: [a] }
pools:
  - name: a
    capacity_rps: -1
    backends: ["127.0.0.1:9001", "127.0.0.1:9001"]
balance: { smoothing: 7 }
database: { retention: { raw: 36h, minutes: 6d, hours: 5d } }
telemetry: { spool: { bytes: 1MiB } }
"#;
        let faults = parse(text).unwrap_err();
        println!("{faults}");
        for expected in [
            "token_env",
            "no pool `nowhere`",
            "there twice",
            "already serves",
            "capacity_rps",
            "already in pool",
            "smoothing",
            "must be whole days",
            "is shorter than `minutes`",
            "is less than 16.0 MiB",
        ] {
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
        assert!(faults.contains("line 4"), "{faults}");
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_reported_together() {
        let text = "modles: []\nforecast: { step: tomorrow }\nlisten: { api: here, color: red }\n";
        let faults = parse(text).unwrap_err();
        println!("{faults}");
        for expected in
            ["field `modles`", "\"tomorrow\" is no length", "field `color`", "invalid socket address"]
        {
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
        for line in ["line 1", "line 2", "line 3"] {
            assert!(faults.contains(line), "{line} is missing in:\n{faults}");
        }
    }

    #[test]
    fn a_broken_element_does_not_shift_the_lines_of_the_others() {
        let text = r#"
models: [{ name: chat, pools: [a, b] }]
pools:
  - { name: a, backends: [nonsense, "127.0.0.1:9001"] }
  - { engine: vllm }
  - { name: b, replicas: { min: 3, max: 2 } }
"#;
        let faults = parse(text).unwrap_err();
        println!("{faults}");
        for expected in ["missing field `name`", "line 6", "min 3 is more than max 2"] {
            assert!(faults.contains(expected), "{expected} is missing in:\n{faults}");
        }
    }

    #[test]
    fn an_empty_file_is_an_empty_configuration() {
        assert!(parse("").is_ok());
        assert!(parse("database:\n  # url: postgres://db\nmodels:\n").is_ok(), "only comments behind a key");
    }

    #[test]
    fn the_example_is_valid_and_shows_the_defaults() {
        let example = parse(include_str!("../../../clairvoy.example.yaml")).unwrap();
        let default = parse("").unwrap();
        assert_eq!(example.listen.api, default.listen.api);
        assert_eq!(format!("{:?}", example.telemetry), format!("{:?}", default.telemetry));
        assert_eq!(format!("{:?}", example.forecast), format!("{:?}", default.forecast));
        assert_eq!(example.database.retention, default.database.retention);
        assert_eq!(format!("{:?}", example.balance), format!("{:?}", default.balance));
        assert_eq!(format!("{:?}", example.gateways()), format!("{:?}", default.gateways()));
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_beside_faults_of_form() {
        let faults =
            parse("bogus: 1\nmodels: [{ name: m, pools: [p, q] }]\npools: [{ name: p }]\n").unwrap_err();
        assert!(faults.contains("bogus") && faults.contains("no pool `q`"), "{faults}");
        let faults = parse("models: [{ name: m, pools: [p] }]\npools: [{ nmae: p }]\n").unwrap_err();
        assert!(!faults.contains("no pool `p`"), "a consequence only:\n{faults}");
    }

    #[test]
    fn malformed_yaml_names_the_line() {
        let faults = parse("models:\n  - { name: chat, pools: [a }\n").unwrap_err();
        assert!(faults.contains("line 2"), "{faults}");
    }
}
