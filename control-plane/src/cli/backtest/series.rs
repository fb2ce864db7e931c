use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail};

use clairvoy_forecaster::Series;

/// The most values that are read: 14 days of seconds of 40 models.
const VALUES_MAX: usize = 50_000_000;

/// Series on one grid.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    pub(super) step_seconds: u32,
    /// Start of the first step, Unix seconds or seconds from any beginning.
    pub(super) first_seconds: i64,
    /// In the order in which the models come first; all of the same length.
    pub(super) series: Vec<Series>,
}

impl Table {
    pub(super) fn steps(&self) -> usize {
        self.series.first().map_or(0, |series| series.values.len())
    }

    /// Returns the start of a step.
    pub(super) fn seconds(&self, step: usize) -> i64 {
        self.first_seconds + step as i64 * i64::from(self.step_seconds)
    }

    /// Puts rates on a grid: by model, in order, and by the second in which their step starts.
    pub(super) fn new(
        step_seconds: Option<u32>,
        rates: Vec<(String, BTreeMap<i64, Option<f64>>)>,
    ) -> anyhow::Result<Self> {
        let starts: BTreeSet<i64> = rates.iter().flat_map(|(_, rates)| rates.keys().copied()).collect();
        let (Some(&first), Some(&last)) = (starts.first(), starts.last()) else {
            bail!("there is no demand to forecast");
        };
        let gaps = starts.iter().zip(starts.iter().skip(1)).map(|(start, next)| next - start);
        let step = step_seconds.map(i64::from).or(gaps.min()).unwrap_or(0);
        let Some(step_seconds) = u32::try_from(step).ok().filter(|step| *step > 0) else {
            bail!("a single step tells no length of steps: at least two timestamps are needed");
        };
        if let Some(off) = starts.iter().find(|start| (*start - first) % step != 0) {
            bail!("timestamp {off} is not on the grid of {step} s that begins at {first}");
        }
        let steps = ((last - first) / step + 1) as usize;
        if steps.saturating_mul(rates.len()) > VALUES_MAX {
            bail!(
                "{} models of {steps} steps of {step} s: at most {VALUES_MAX} values are read",
                rates.len()
            );
        }
        let on_grid = |(name, rates): (String, BTreeMap<i64, Option<f64>>)| {
            let mut values = vec![None; steps];
            for (start, rate) in rates {
                values[((start - first) / step) as usize] = rate;
            }
            Series { name, values }
        };
        Ok(Self { step_seconds, first_seconds: first, series: rates.into_iter().map(on_grid).collect() })
    }
}

/// Reads a CSV file with the columns `timestamp_s`, `model` and `column`, in any order, among others.
pub(super) fn read(path: &Path, column: &str) -> anyhow::Result<Table> {
    let named = || format!("{}", path.display());
    let reader = csv::Reader::from_path(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(reader, column).with_context(named)
}

fn parse(mut reader: csv::Reader<impl std::io::Read>, column: &str) -> anyhow::Result<Table> {
    let header = reader.headers()?.clone();
    let place = |name: &str| {
        let place = header.iter().position(|found| found.trim() == name);
        place.with_context(|| {
            format!(
                "there is no column `{name}`; there are: {}",
                header.iter().collect::<Vec<_>>().join(", ")
            )
        })
    };
    let (time, model, value) = (place("timestamp_s")?, place("model")?, place(column)?);
    let mut rates: Vec<(String, BTreeMap<i64, Option<f64>>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    let mut record = csv::StringRecord::new();
    let mut count = 0;
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        count += 1;
        if count > VALUES_MAX {
            bail!("more than {VALUES_MAX} rows");
        }
        let field = |place: usize| record.get(place).unwrap_or("").trim();
        let start = seconds(field(time))
            .with_context(|| format!("line {line}: `{}` is no time in whole seconds", field(time)))?;
        let rate =
            rate(field(value)).with_context(|| format!("line {line}: `{}` is no number", field(value)))?;
        let index = *known.entry(field(model).to_owned()).or_insert_with_key(|name| {
            rates.push((name.clone(), BTreeMap::new()));
            rates.len() - 1
        });
        if rates[index].1.insert(start, rate).is_some() {
            bail!("line {line}: a second row of {} at {start}", field(model));
        }
    }
    Table::new(None, rates)
}

fn seconds(text: &str) -> Option<i64> {
    let seconds: f64 = text.parse().ok()?;
    (seconds.fract() == 0.0 && seconds.abs() < 1e15).then_some(seconds as i64)
}

/// Empty or NaN is unknown; `None` is no number.
fn rate(text: &str) -> Option<Option<f64>> {
    if text.is_empty() {
        return Some(None);
    }
    let rate: f64 = text.parse().ok()?;
    Some(rate.is_finite().then_some(rate))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::fuzz::cases())]

        #[test]
        fn what_was_written_is_read(
            values in proptest::collection::vec(proptest::option::of(-1e9_f64..1e9), 2..40),
            first in -1_000_000_i64..1_000_000, step in 1_i64..10_000,
        ) {
            let mut text = "timestamp_s,model,rps\n".to_owned();
            for (index, value) in (0..).zip(&values) {
                let value = value.map(|value| value.to_string()).unwrap_or_default();
                text.push_str(&format!("{},m,{value}\n", first + index * step));
            }
            let table = parsed(&text).unwrap();
            prop_assert_eq!((i64::from(table.step_seconds), table.first_seconds), (step, first));
            prop_assert_eq!(&table.series[0].values, &values);
        }

        #[test]
        fn any_text_is_a_table_or_refused(
            rows in "((-?[0-9]{1,16}|[0-9.eE+-]{0,5}|nan|inf|1e14|\"|.)(,|\n)){0,40}", header in any::<bool>(),
        ) {
            let header = if header { "timestamp_s,model,rps\n" } else { "" };
            if let Ok(table) = parsed(&format!("{header}{rows}")) {
                let finite = |value: &Option<f64>| value.is_none_or(f64::is_finite);
                prop_assert!(table.series.iter().all(|series| series.values.iter().all(finite)));
                prop_assert!(table.series.iter().all(|series| series.values.len() == table.steps()));
            }
        }
    }

    fn parsed(text: &str) -> anyhow::Result<Table> {
        parse(csv::Reader::from_reader(text.as_bytes()), "rps")
    }

    #[test]
    fn finds_the_grid_and_leaves_holes_unknown() {
        let table = parsed("rps,model,timestamp_s\n1,a,600\n2,a,1200\n,b,1800\n4,a,2400\n5,b,600\n").unwrap();
        assert_eq!((table.step_seconds, table.first_seconds, table.seconds(2)), (600, 600, 1800));
        assert_eq!(table.series[0].values, [Some(1.0), Some(2.0), None, Some(4.0)]);
        assert_eq!(table.series[1].values, [Some(5.0), None, None, None]);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let fault = |text| format!("{:#}", parsed(text).unwrap_err());
        assert!(fault("time,model,rps\n").contains("no column `timestamp_s`; there are: time, model, rps"));
        assert!(fault("timestamp_s,model,rps\n0,a,1\n60,a,x\n").contains("line 3: `x` is no number"));
        assert!(fault("timestamp_s,model,rps\n0.5,a,1\n").contains("line 2: `0.5` is no time"));
        assert!(fault("timestamp_s,model,rps\n0,a,1\n0,a,2\n").contains("line 3: a second row of a at 0"));
        assert!(
            fault("timestamp_s,model,rps\n0,a,1\n60,a,1\n150,a,1\n")
                .contains("timestamp 150 is not on the grid")
        );
        assert!(fault("timestamp_s,model,rps\n0,a,1\n").contains("at least two timestamps"));
        assert!(fault("timestamp_s,model,rps\n").contains("no demand"));
    }
}
