use proptest::prelude::*;

use super::*;

type Row = (String, Vec<(String, String)>, f64);

fn rows(page: impl AsRef<[u8]>) -> (Vec<Row>, PageTally) {
    let mut rows = Vec::new();
    let tally = for_each_sample(page.as_ref(), |name, labels, value| {
        let labels = labels.iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        rows.push((name.to_owned(), labels, value));
    });
    (rows, tally)
}

fn one(line: &str) -> Row {
    let (mut rows, tally) = rows(line);
    assert_eq!(tally, PageTally { samples: 1, bad_lines: 0 }, "{line}");
    rows.remove(0)
}

#[test]
fn reads_the_forms_a_sample_comes_in() {
    assert_eq!(one("up 1"), ("up".into(), vec![], 1.0));
    assert_eq!(one("  up\t1e3  "), ("up".into(), vec![], 1000.0));
    assert_eq!(one("up{} 1 1700000000000"), ("up".into(), vec![], 1.0));
    let labelled = ("a:b".to_owned(), vec![("c".to_owned(), "d".to_owned())], -2.5);
    assert_eq!(one(r#"a:b{c="d"} -2.5"#), labelled);
    assert_eq!(one(r#"a:b { c = "d" , } -2.5 1700000000.123"#), labelled);
    assert_eq!(one(r#"a:b{c="d"}-2.5 # {trace="x"} 0.5 1.5"#), labelled);
    assert_eq!(one("a +Inf").2, f64::INFINITY);
    assert_eq!(one("a -Inf").2, f64::NEG_INFINITY);
    assert!(one("a NaN").2.is_nan());
}

#[test]
fn decodes_escapes_and_finds_labels_by_name() {
    let line = r#"a{path="C:\\new",quote="\"}\"",feed="x\ny",odd="\q"} 1"#;
    let mut seen = 0;
    for_each_sample(line.as_bytes(), |_, labels, _| {
        seen += 1;
        assert_eq!(labels.get("path").as_deref(), Some(r"C:\new"));
        assert_eq!(labels.get("quote").as_deref(), Some(r#""}""#));
        assert_eq!(labels.get("feed").as_deref(), Some("x\ny"));
        assert_eq!(labels.get("odd").as_deref(), Some(r"\q"));
        assert_eq!(labels.get("none"), None);
    });
    assert_eq!(seen, 1);
}

#[test]
fn a_bad_line_is_counted_and_its_neighbours_survive() {
    let page =
        b"# HELP a b\r\na 1\r\n\r\nno_value\r\n1a 2\r\na{b=\"c} 1\r\na{b=c} 1\r\na{,} 1\r\na 1 2 3\r\n\
        a x\r\na 1 # nonsense\r\n\xff\xfe 1\r\n{\"quoted} 1\r\nb 2\r\n# EOF\r\n";
    let (rows, tally) = rows(page);
    assert_eq!(rows.iter().map(|row| row.0.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(tally, PageTally { samples: 2, bad_lines: 10 });
}

#[test]
fn names_in_quotes_are_names() {
    assert_eq!(one(r#"{"my.metric"} 1"#), ("my.metric".into(), vec![], 1.0));
    let labelled = (
        "a \"b\"".to_owned(),
        vec![("x.y".to_owned(), "1".to_owned()), ("z".to_owned(), "2".to_owned())],
        3.0,
    );
    assert_eq!(one(r#"{ "a \"b\"" , "x.y" = "1",z="2", } 3 1700000000"#), labelled);
    assert_eq!(one(r#"{"x.y"="1","a \"b\"",z="2"} 3"#), labelled);
    for bad in [r#"{"a","b"} 1"#, r#"{a="b"} 1"#, r#"{""} 1"#, r#"a{"b"} 1"#, r#"{"a} 1"#, r#"{"a"}"#, "{} 1"]
    {
        assert_eq!(rows(bad).1, PageTally { samples: 0, bad_lines: 1 }, "{bad}");
    }
}

#[test]
fn lines_of_unknown_names_are_checked_in_outline() {
    let page =
        "known 1\nother{a=\"b\"} 2\nother 3 # {x=\"y\"} 1\nother\nother{a=\"b\" 1\nother{a=\"b\"}\nother x\n";
    let mut seen = Vec::new();
    let known = |name: &str| (name == "known").then_some(());
    let tally = for_each_known(page.as_bytes(), known, |(), _, value| seen.push(value));
    assert_eq!((seen, tally), (vec![1.0], PageTally { samples: 3, bad_lines: 4 }));
}

proptest! {
    #![proptest_config(crate::fuzz::cases())]

    #[test]
    fn any_bytes_are_read_without_a_panic(page in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (rows, tally) = rows(&page);
        prop_assert_eq!(rows.len(), tally.samples);
    }

    #[test]
    fn near_samples_are_read_without_a_panic(page in "([a-c:_]{0,3}[{}=\",\\\\ #\n]{0,4}[0-9.eINa+-]{0,3}){0,40}") {
        let (rows, tally) = rows(&page);
        prop_assert_eq!(rows.len(), tally.samples);
    }

    #[test]
    fn openmetrics_is_read_as_it_was_written(
        samples in proptest::collection::vec(
            (
                "[a-z_:][a-z0-9_:]{0,12}",
                proptest::option::of(any::<String>()),
                any::<f64>(),
                proptest::option::of(0.0_f64..4e9),
                proptest::option::of((any::<String>(), any::<f64>(), proptest::option::of(0.0_f64..4e9))),
            ),
            1..8,
        ),
    ) {
        let escaped =
            |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let mut page = String::from("# TYPE a counter\n# UNIT a seconds\n# HELP a What \\\"a\\\" is.\n");
        for (name, label, value, time, exemplar) in &samples {
            page.push_str(name);
            if let Some(label) = label {
                page.push_str(&format!("{{l=\"{}\"}}", escaped(label)));
            }
            page.push_str(&format!(" {value}"));
            if let Some(time) = time {
                page.push_str(&format!(" {time}"));
            }
            if let Some((label, value, time)) = exemplar {
                page.push_str(&format!(" # {{trace_id=\"{}\"}} {value}", escaped(label)));
                if let Some(time) = time {
                    page.push_str(&format!(" {time}"));
                }
            }
            page.push('\n');
        }
        page.push_str("# EOF\n");
        let (rows, tally) = rows(&page);
        prop_assert_eq!(tally, PageTally { samples: samples.len(), bad_lines: 0 });
        for (row, (name, label, value, ..)) in rows.iter().zip(&samples) {
            prop_assert_eq!(&row.0, name);
            prop_assert_eq!(row.1.first().map(|(_, value)| value), label.as_ref());
            prop_assert!(row.2 == *value || (row.2.is_nan() && value.is_nan()));
        }
    }

    #[test]
    fn what_was_written_is_read(
        name in "[a-z_:][a-z0-9_:]{0,20}",
        labels in proptest::collection::vec(("[a-z_][a-z0-9_]{0,8}", any::<String>()), 0..5),
        value in any::<f64>(),
    ) {
        let written = labels
            .iter()
            .map(|(key, value)| {
                let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
                format!("{key}=\"{value}\"")
            })
            .collect::<Vec<_>>()
            .join(",");
        let (rows, tally) = rows(format!("{name}{{{written}}} {value}"));
        prop_assert_eq!(tally, PageTally { samples: 1, bad_lines: 0 });
        prop_assert_eq!(&rows[0].0, &name);
        prop_assert_eq!(&rows[0].1, &labels);
        prop_assert!(rows[0].2 == value || (rows[0].2.is_nan() && value.is_nan()));
    }
}
