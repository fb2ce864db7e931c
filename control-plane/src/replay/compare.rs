use std::collections::VecDeque;

use serde_json::Value;

use crate::store::DecisionRow;

/// Decisions of one side that may wait for the other's: those of some seconds of a large fleet. With more, the other side
/// has none.
const MOST_WAITING: usize = 50_000;

/// Two runs of decisions, side by side as they come. Of those that are compared only a count is kept, and of those after
/// the first difference nothing.
#[derive(Debug, Default)]
pub struct Comparison {
    before: VecDeque<DecisionRow>,
    now: VecDeque<DecisionRow>,
    equal: u64,
    difference: Option<String>,
}

impl Comparison {
    /// Takes the next decision that was made before.
    pub fn before(&mut self, row: DecisionRow) {
        self.before.push_back(row);
        self.compare();
    }

    /// Takes the next decision that was made now.
    pub fn now(&mut self, row: DecisionRow) {
        self.now.push_back(row);
        self.compare();
    }

    /// Decisions that are the same in both, up to the first that is not.
    #[must_use]
    pub fn equal(&self) -> u64 {
        self.equal
    }

    /// The first difference, in words; none when both are the same. To be asked when both have ended.
    #[must_use]
    pub fn difference(&self) -> Option<String> {
        let left = |rows: &VecDeque<DecisionRow>, what: &str| {
            rows.front().map(|row| format!("{} {what}", name(row)))
        };
        self.difference
            .clone()
            .or_else(|| left(&self.before, "was made before, and is not made now"))
            .or_else(|| left(&self.now, "is made now, and was not made before"))
    }

    fn compare(&mut self) {
        while let (Some(before), Some(now)) = (self.before.front(), self.now.front()) {
            // An id is made from all that a decision says.
            if self.difference.is_none() && before.id == now.id {
                self.equal += 1;
            } else {
                self.difference.get_or_insert_with(|| words(before, now));
            }
            self.before.pop_front();
            self.now.pop_front();
        }
        if self.before.len().max(self.now.len()) > MOST_WAITING {
            self.difference = self.difference();
        }
        if self.difference.is_some() {
            (self.before, self.now) = Default::default();
        }
    }
}

fn name(row: &DecisionRow) -> String {
    let of = row.pool.as_ref().unwrap_or(&row.model);
    format!("the decision on {} of {of} at {}", row.kind, row.at.to_rfc3339())
}

fn words(before: &DecisionRow, now: &DecisionRow) -> String {
    let subject = |row: &DecisionRow| (row.at, row.model.clone(), row.pool.clone());
    if subject(before) != subject(now) {
        return if before.at <= now.at {
            format!("{} was made before, and now comes {} ({})", name(before), name(now), now.summary)
        } else {
            format!("{} is made now, and before came {} ({})", name(now), name(before), before.summary)
        };
    }
    let parts = [("inputs", &before.inputs, &now.inputs), ("changes", &before.changes, &now.changes)];
    for (part, before, now_value) in parts {
        if let Some((path, was, is)) = differs(before, now_value) {
            let why = reason(part, &path);
            return format!("{}: {part}{path} was {was}, is {is}: {why}", name(now));
        }
    }
    format!("{}: `{}` was said before, `{}` now", name(now), before.summary, now.summary)
}

/// The first place where two values differ, and what is there. What was measured comes before what follows from it.
fn differs(before: &Value, now: &Value) -> Option<(String, String, String)> {
    const FIRST: [&str; 4] = ["law", "demand_rps", "backends", "previous"];
    match (before, now) {
        (Value::Object(left), Value::Object(right)) => {
            let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
            keys.sort_by_key(|key| {
                (FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len()), *key)
            });
            keys.dedup();
            keys.into_iter().find_map(|key| {
                let (left, right) =
                    (left.get(key).unwrap_or(&Value::Null), right.get(key).unwrap_or(&Value::Null));
                differs(left, right).map(|(path, was, is)| (format!(".{key}{path}"), was, is))
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            left.iter().zip(right).enumerate().find_map(|(index, (left, right))| {
                differs(left, right).map(|(path, was, is)| (format!("[{index}]{path}"), was, is))
            })
        }
        (left, right) if left == right => None,
        (left, right) => Some((String::new(), short(left), short(right))),
    }
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 80;
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        other => other.to_string().chars().take(LONGEST).collect(),
    }
}

/// Why inputs differ, as far as the place tells.
fn reason(part: &str, path: &str) -> &'static str {
    let has = |word: &str| path.contains(word);
    if part == "changes" {
        "the inputs are the same: the program decides otherwise"
    } else if has(".zones") {
        "Envoys of other zones were connected, or had other requests"
    } else if has(".law") {
        "the settings of `balance` differ"
    } else if has("capacity") {
        "a configured capacity differs, or the samples that it was learned from"
    } else if has("demand_rps") || has("slowdown") || has("age_seconds") || has("in_flight") || has(".mix") {
        "the samples differ: some are missing, or were taken in at another time"
    } else if has(".envoys") {
        "other Envoys reported"
    } else if has(".backends") {
        "other backends served the model"
    } else if has(".previous") {
        "shares had moved apart before, without a decision"
    } else if has(".plan") || has(".ready") {
        "a plan was made from other demand, another forecast or other bounds"
    } else {
        "it was made from something else"
    }
}
