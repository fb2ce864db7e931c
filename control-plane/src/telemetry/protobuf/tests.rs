use proptest::prelude::*;

use super::*;

/// A family as exporters send it.
#[derive(Clone, PartialEq, Message)]
struct MetricFamily {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "2")]
    help: Option<String>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
    #[prost(message, repeated, tag = "4")]
    metric: Vec<Metric>,
}

fn family(name: &str, metric: Vec<Metric>) -> MetricFamily {
    MetricFamily { name: Some(name.into()), help: Some("help".into()), kind: Some(4), metric }
}

fn page(families: &[MetricFamily]) -> Vec<u8> {
    families.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

type Row = (String, Vec<(String, String)>, Option<f64>, f64);

fn rows(page: &[u8]) -> (Vec<Row>, PageTally) {
    let mut rows = Vec::new();
    let tally = for_each_known(
        page,
        |name| Some(name.to_owned()),
        |name, labels, value| {
            let pairs = labels.iter().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
            rows.push((name, pairs, labels.edge(), value));
        },
    );
    (rows, tally)
}

#[test]
fn families_are_read_as_their_samples() {
    let label = vec![LabelPair { name: Some("a".into()), value: Some("b".into()) }];
    let gauge = Metric { label, gauge: Some(Number { value: Some(2.5) }), ..Metric::default() };
    let bucket = |upper_bound, count| Bucket {
        upper_bound: Some(upper_bound),
        cumulative_count: Some(count),
        cumulative_count_float: None,
    };
    let histogram = Histogram {
        sample_count: Some(7),
        sample_sum: Some(1.5),
        bucket: vec![bucket(0.1, 3), bucket(f64::INFINITY, 7)],
        sample_count_float: None,
    };
    let histogram = Metric { histogram: Some(histogram), ..Metric::default() };
    let (rows, tally) = rows(&page(&[family("g", vec![gauge]), family("h", vec![histogram])]));
    let expected: Vec<Row> = vec![
        ("g".into(), vec![("a".into(), "b".into())], None, 2.5),
        ("h_sum".into(), vec![], None, 1.5),
        ("h_count".into(), vec![], None, 7.0),
        ("h_bucket".into(), vec![], Some(0.1), 3.0),
        ("h_bucket".into(), vec![], Some(f64::INFINITY), 7.0),
    ];
    assert_eq!((rows, tally), (expected, PageTally { samples: 5, bad_lines: 0 }));
}

#[test]
fn broken_messages_are_counted_and_their_neighbours_survive() {
    let counter = Metric { counter: Some(Number { value: Some(1.0) }), ..Metric::default() };
    let good = page(&[family("a_total", vec![counter])]);
    // A family whose metric says that it is longer than it is, one without a name, and a length beyond the end.
    let broken = [&[5, 0x0a, 1, b'x', 0x22, 9][..], &[2, 0x12, 0], &good, &[100, 1]].concat();
    let (rows, tally) = rows(&broken);
    assert_eq!(rows.len(), 1);
    assert_eq!(tally, PageTally { samples: 1, bad_lines: 3 });
}

proptest! {
    #![proptest_config(crate::fuzz::cases())]

    #[test]
    fn any_bytes_are_read_without_a_panic(page in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let (rows, tally) = rows(&page);
        prop_assert_eq!(rows.len(), tally.samples);
    }

    #[test]
    fn a_page_is_read_as_it_was_written(
        metrics in proptest::collection::vec(
            (
                0..4_u8,
                proptest::collection::vec(("[a-z]{1,5}", any::<String>()), 0..4),
                any::<f64>(),
                any::<u32>(),
                proptest::collection::vec((any::<f64>(), any::<u32>()), 0..6),
            ),
            0..12,
        ),
    ) {
        let mut families = Vec::new();
        let mut expected: Vec<Row> = Vec::new();
        for (at, (kind, pairs, value, count, buckets)) in metrics.into_iter().enumerate() {
            let name = format!("family_{at}");
            let label = pairs
                .iter()
                .map(|(name, value)| LabelPair { name: Some(name.clone()), value: Some(value.clone()) })
                .collect();
            let mut metric = Metric { label, ..Metric::default() };
            let mut expect = |suffix: &str, edge, value| {
                expected.push((format!("{name}{suffix}"), pairs.clone(), edge, value));
            };
            let number = Some(Number { value: Some(value) });
            match kind {
                0 => metric.gauge = number,
                1 => metric.counter = number,
                2 => metric.untyped = number,
                _ => {
                    expect("_sum", None, value);
                    expect("_count", None, f64::from(count));
                    let bucket = |(upper_bound, count): &(f64, u32)| Bucket {
                        upper_bound: Some(*upper_bound),
                        cumulative_count: Some(u64::from(*count)),
                        cumulative_count_float: None,
                    };
                    metric.histogram = Some(Histogram {
                        sample_count: Some(u64::from(count)),
                        sample_sum: Some(value),
                        bucket: buckets.iter().map(bucket).collect(),
                        sample_count_float: None,
                    });
                    buckets.iter().for_each(|(edge, count)| expect("_bucket", Some(*edge), f64::from(*count)));
                }
            }
            if kind < 3 {
                expect("", None, value);
            }
            families.push(family(&name, vec![metric]));
        }
        let (rows, tally) = rows(&page(&families));
        prop_assert_eq!(tally, PageTally { samples: expected.len(), bad_lines: 0 });
        // As text, in which NaN is like itself.
        prop_assert_eq!(format!("{rows:?}"), format!("{expected:?}"));
    }

    #[test]
    fn a_page_with_flipped_bytes_is_read_without_a_panic(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        values in proptest::collection::vec(any::<f64>(), 1..20),
    ) {
        let metric = |value: &f64| Metric { gauge: Some(Number { value: Some(*value) }), ..Metric::default() };
        let mut page = page(&[family("a", values.iter().map(metric).collect()), family("b", vec![])]);
        for (at, byte) in flips {
            let at = at.index(page.len());
            page[at] = byte;
        }
        let (rows, tally) = rows(&page);
        prop_assert_eq!(rows.len(), tally.samples);
    }
}
