//! How long the tests of parsers try.

use proptest::test_runner::Config;

/// As many cases as `PROPTEST_CASES` says, else proptest's default; a hundred times that with `CLAIRVOY_LONG=1`.
pub(crate) fn cases() -> Config {
    let default = Config::default();
    let is_set = |name: &str, wanted: Option<&str>| {
        std::env::var(name).is_ok_and(|value| wanted.is_none_or(|wanted| value == wanted))
    };
    let is_long = is_set("CLAIRVOY_LONG", Some("1")) && !is_set("PROPTEST_CASES", None);
    Config { cases: if is_long { 100 * default.cases } else { default.cases }, ..default }
}

/// The same for cases of which each takes some milliseconds.
pub(crate) fn few_cases() -> Config {
    let all = cases();
    Config { cases: (all.cases / 8).max(1), ..all }
}
