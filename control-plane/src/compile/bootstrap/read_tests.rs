use proptest::prelude::*;

use super::merge::write;
use super::read::{Format, read};
use super::tree::{Map, Tree};

fn yaml(text: &str) -> Tree {
    read(text, Format::Yaml).unwrap()
}

fn refusal(text: &str) -> String {
    read(text, Format::Yaml).unwrap_err().to_string()
}

#[test]
fn plain_scalars_mean_what_they_mean_to_envoy() {
    for (text, expected) in [
        ("yes", Tree::Bool(true)),
        ("OFF", Tree::Bool(false)),
        ("oN", "oN".into()),
        ("010", Tree::Number(8.into())),
        ("08", "08".into()),
        ("0x10", Tree::Number(16.into())),
        ("-5", Tree::Number((-5).into())),
        ("1_000", "1_000".into()),
        ("1.10", "1.10".into()),
        ("1e3", "1e3".into()),
        ("99999999999999999999", "99999999999999999999".into()),
        ("~", Tree::Null),
        ("'5'", "5".into()),
        ("! 5", "5".into()),
        ("\"yes\"", "yes".into()),
    ] {
        assert_eq!(yaml(text), expected, "{text}");
    }
    assert_eq!(yaml("{a: 0.5}"), Tree::from(serde_json::json!({"a": 0.5})));
}

#[test]
fn what_is_written_has_the_same_letters_for_fractions_and_quotes_for_texts() {
    let written = write(&yaml("{a: 0.5, b: 1.10, c: '010', d: 'no', e: 1e3}"), Format::Yaml).unwrap();
    for expected in ["a: 0.5\n", "1.10", "\"010\"", "\"no\"", "1e3"] {
        assert!(written.replace('\'', "\"").contains(expected), "{expected}: {written}");
    }
    assert_eq!(yaml(&written), yaml("{a: 0.5, b: '1.10', c: '010', d: 'no', e: '1e3'}"));
}

#[test]
fn anchors_are_followed_and_ignored_entries_left_out() {
    let text = "!ignore shared: &t {timeout: 5s}\na: *t\nb: [*t]\n";
    assert_eq!(yaml(text), Tree::from(serde_json::json!({"a": {"timeout": "5s"}, "b": [{"timeout": "5s"}]})));
}

#[test]
fn what_cannot_be_kept_is_refused_with_its_line() {
    for (text, expected) in [
        ("a: 1\nb: !!str 5\n", "line 2: the tag"),
        ("a: 1\na: 2\n", "a is there twice"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "line 3: a merge key"),
        ("a: 1\n---\nb: 2\n", "a second document"),
        ("a: [1\n", "not valid YAML"),
        ("{a: 1}: 2\n", "a key that is no text"),
    ] {
        let found = refusal(text);
        assert!(found.contains(expected), "{text:?}: {found}");
    }
    let found = read("{\"a\": 1, \"a\": 2}", Format::Json).unwrap_err().to_string();
    assert!(found.contains("twice"), "{found}");
}

#[test]
fn aliases_that_multiply_end_at_a_limit() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    let mut tower = "a0: &a0 [x]\n".to_owned();
    for level in 1..200 {
        let below = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{below}"); 10].join(", "));
        tower += &format!("a{level}: &a{level} [*a{below}]\n");
    }
    assert!(refusal(&bomb).contains("more than 1000000 values"));
    assert!(refusal(&tower).contains("nested deeper"));
    assert!(read(&"[".repeat(5000), Format::Yaml).is_err());
    assert!(read(&"[".repeat(5000), Format::Json).is_err());
}

/// Texts that a careless writer would turn into something else.
fn text() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec![
        "",
        " ",
        "yes",
        "No",
        "on",
        "~",
        "null",
        "010",
        "0x1F",
        "1e3",
        "1.10",
        "-5",
        "+7",
        ".5",
        "5.",
        ".inf",
        "nan",
        "- a",
        "a: b",
        "a #b",
        "#",
        "*a",
        "&a",
        "!x",
        "<<",
        "=",
        "%a",
        "@a",
        "`",
        "'",
        "\"",
        "{",
        "[",
        "]",
        "a,b",
        "|",
        ">",
        "?",
        "a\n",
        "\na",
        "  a\n b\n",
        "a\tb\n\n",
        "\t",
        "é\u{1F600}",
        "a\u{85}b",
        "a\r\nb",
        "2026-01-01",
        "1:20",
        "function f()\n  return 1\nend\n",
        "--- a",
        "...",
        "\u{7f}",
        "a\\nb",
        "trailing  \nspace ",
    ]);
    prop_oneof![odd.prop_map(str::to_owned), "[a-z_./:]{1,8}", "\\PC{0,20}"]
}

pub(super) fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Tree::Bool),
        any::<i64>().prop_map(|number| Tree::Number(number.into())),
        text().prop_map(Tree::Text),
        Just(Tree::Null),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Tree::List),
            prop::collection::btree_map(text(), inner, 0..4).prop_map(|entries| {
                let mut map = Map::default();
                entries.into_iter().for_each(|(key, value)| map.push(key, value));
                Tree::Map(map)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(tree in tree()) {
        for format in [Format::Yaml, Format::Json] {
            let written = write(&tree, format).unwrap();
            prop_assert_eq!(&read(&written, format).unwrap(), &tree, "{}", written);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[-a: \\[\\]{}&*!<>|'\"#\\n,0-9]{0,40}") {
        if let Ok(tree) = read(&text, Format::Yaml) {
            prop_assert!(write(&tree, Format::Yaml).is_ok());
        }
    }
}
