use garde::{Error, Path, Report, Validate};
use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::Config;

/// Faults of form beyond which a file is not worth a longer list.
const MAX_FAULTS: usize = 100;

/// A configuration file before it has a type.
///
/// A typed parse ends at its first fault. Here each fault of form is noted, what it concerns is cut out, and the rest is
/// tried again; at last the rest is validated as a whole. So a user sees every fault at once.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct Document(Value);

impl Document {
    pub(super) fn into_config(self) -> Result<Config, serde_json::Error> {
        serde_json::from_value(without_nulls(self.0))
    }
}

impl Validate for Document {
    type Context = ();

    fn validate_into(&self, context: &(), parent: &mut dyn FnMut() -> Path, report: &mut Report) {
        let root = parent();
        let mut rest = without_nulls(self.0.clone());
        let mut cuts = Vec::new();
        while cuts.len() < MAX_FAULTS {
            let error = match serde_path_to_error::deserialize::<_, Config>(&rest) {
                Err(error) => error,
                Ok(config) => {
                    validate_rest(&config, context, &root, &cuts, report);
                    return;
                }
            };
            let found: Vec<Step> = error.path().iter().filter_map(Step::of).collect();
            let message = error.inner().to_string();
            let path = with_unknown_field(found, &message, &rest);
            report.append(garde_path(&root, &original(&path, &cuts)), Error::new(message));
            if path.is_empty() || !cut(&mut rest, &path) {
                return;
            }
            cuts.push(original(&path, &cuts));
        }
    }
}

/// An empty file is an empty configuration, and a key with nothing behind it (or only comments) is as good as absent.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Null => Value::Object(serde_json::Map::new()),
        Value::Object(map) => {
            let present = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(present.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(
            list.into_iter()
                .map(|value| if value.is_null() { value } else { without_nulls(value) })
                .collect(),
        ),
        other => other,
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn of(segment: &Segment) -> Option<Self> {
        match segment {
            Segment::Seq { index } => Some(Self::Index(*index)),
            Segment::Map { key } => Some(Self::Key(key.clone())),
            Segment::Enum { .. } | Segment::Unknown => None,
        }
    }
}

/// serde names an unknown field in its message only; the path has to reach the field for the right line to be shown.
fn with_unknown_field(mut path: Vec<Step>, message: &str, rest: &Value) -> Vec<Step> {
    let field = message.strip_prefix("unknown field `").and_then(|tail| tail.split('`').next());
    if let Some(field) = field
        && at(rest, &path).is_some_and(|value| value.get(field).is_some())
    {
        path.push(Step::Key(field.to_owned()));
    }
    path
}

fn at<'a>(value: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get(key),
        Step::Index(index) => value.get(index),
    })
}

fn cut(value: &mut Value, path: &[Step]) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut parent = value;
    for step in parents {
        let child = match step {
            Step::Key(key) => parent.get_mut(key),
            Step::Index(index) => parent.get_mut(index),
        };
        let Some(child) = child else { return false };
        parent = child;
    }
    match (parent, last) {
        (Value::Object(map), Step::Key(key)) => map.remove(key).is_some(),
        (Value::Array(list), Step::Index(index)) if *index < list.len() => {
            list.remove(*index);
            true
        }
        _ => false,
    }
}

/// The path in the file of a path in the rest, whose lists have lost the elements in `cuts`.
fn original(path: &[Step], cuts: &[Vec<Step>]) -> Vec<Step> {
    let mut found: Vec<Step> = Vec::with_capacity(path.len());
    for step in path {
        match step {
            Step::Key(_) => found.push(step.clone()),
            Step::Index(index) => {
                let mut gone: Vec<usize> = cuts
                    .iter()
                    .filter(|cut| cut.len() == found.len() + 1 && cut.starts_with(&found))
                    .filter_map(|cut| match cut.last() {
                        Some(Step::Index(index)) => Some(*index),
                        _ => None,
                    })
                    .collect();
                gone.sort_unstable();
                found.push(Step::Index(
                    gone.into_iter().fold(*index, |index, gone| index + usize::from(gone <= index)),
                ));
            }
        }
    }
    found
}

fn garde_path(root: &Path, path: &[Step]) -> Path {
    path.iter().fold(root.clone(), |path, step| match step {
        Step::Key(key) => path.join(key.as_str()),
        Step::Index(index) => path.join(*index),
    })
}

/// Faults of meaning in what could be read. Where a pool or a model was cut out, names may be missing because of that:
/// then what only says that a name does not exist is left for the next try.
fn validate_rest(config: &Config, context: &(), root: &Path, cuts: &[Vec<Step>], report: &mut Report) {
    let names_are_missing = cuts.iter().any(|cut| cuts_names(cut));
    let mut found = Report::new();
    config.validate_into(context, &mut Path::empty, &mut found);
    for (path, error) in found.into_inner() {
        let is_of_a_name =
            ["there is no ", "no model "].iter().any(|start| error.message().starts_with(start));
        if !(names_are_missing && is_of_a_name) {
            let steps: Vec<Step> = steps_of(&path);
            report.append(garde_path(root, &original(&steps, cuts)), error);
        }
    }
}

/// Whether what was cut out held names: a whole pool or model, all of them, or a part of a model's list of pools.
fn cuts_names(cut: &[Step]) -> bool {
    let is = |step: &Step, name: &str| matches!(step, Step::Key(key) if key == name);
    match cut {
        [list] | [list, Step::Index(_)] => is(list, "models") || is(list, "pools"),
        [list, Step::Index(_), field, ..] => is(list, "models") && is(field, "pools"),
        _ => false,
    }
}

fn steps_of(path: &Path) -> Vec<Step> {
    path.to_string()
        .replace('[', ".[")
        .split('.')
        .filter(|part| !part.is_empty())
        .map(|part| match part.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(index) if part.starts_with('[') => Step::Index(index),
            _ => Step::Key(part.to_owned()),
        })
        .collect()
}
