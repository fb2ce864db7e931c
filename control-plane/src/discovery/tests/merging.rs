use std::time::Duration;

use super::super::{Answer, Found, LookupFailure, Merged, merge};
use super::{at, listed};

const HOLD: Duration = Duration::from_secs(30);

fn numbers(found: &Found) -> Vec<u8> {
    found
        .backends
        .keys()
        .map(|address| address.to_string()[7..].split(':').next().unwrap().parse().unwrap())
        .collect()
}

/// Merges one answer after the other, each at its second.
fn run(answers: &[(i64, Option<Answer>)]) -> Vec<Merged> {
    let mut found = Found::default();
    let mut outcomes = Vec::new();
    for (second, answer) in answers {
        let merged = merge(&found, answer.as_ref(), HOLD, at(*second));
        found = merged.found.clone();
        outcomes.push(merged);
    }
    outcomes
}

#[test]
fn records_come_and_go() {
    let steps = run(&[(0, Some(listed([1, 2, 3]))), (5, Some(listed([1, 2, 4])))]);
    assert_eq!(steps[0].came.len(), 3);
    assert_eq!(numbers(&steps[1].found), [1, 2, 4], "one of three is gone: it drains at once");
    assert_eq!((steps[1].came.len(), steps[1].went.len()), (1, 1));
    assert!(!steps[1].found.holding);
}

#[test]
fn nothing_is_lost_while_nobody_tells_who_is_there() {
    let failures = [
        Answer::Failed(LookupFailure::NoSuchName("x".into())),
        listed([]),
        Answer::Failed(LookupFailure::Timeout("x".into())),
    ];
    let mut answers = vec![(0, Some(listed([1, 2])))];
    answers.extend(failures.into_iter().zip([10, 20, 9999]).map(|(answer, second)| (second, Some(answer))));
    answers.push((10_000, None));
    let steps = run(&answers);
    assert!(steps[1..].iter().all(|step| numbers(&step.found) == [1, 2] && step.went.is_empty()));
    assert_eq!(steps.iter().filter(|step| step.became_stale).count(), 1, "it is told once");
    assert_eq!(steps[4].found.stale.as_ref().unwrap().0, at(10), "since the first failure");
    let again = merge(&steps[4].found, Some(&listed([1, 2])), HOLD, at(10_001));
    assert!(again.recovered && again.found.stale.is_none());
}

#[test]
fn more_than_half_at_once_is_held() {
    let steps =
        run(&[(0, Some(listed([1, 2, 3]))), (10, Some(listed([1]))), (39, Some(listed([1]))), (40, None)]);
    assert!(steps[1].began_to_hold && !steps[2].began_to_hold);
    assert_eq!(numbers(&steps[2].found), [1, 2, 3]);
    assert_eq!(numbers(&steps[3].found), [1], "the time alone ends it");
    assert!(!steps[3].found.holding);
}

#[test]
fn a_replacement_of_all_is_held_although_the_newcomers_make_it_less_than_half() {
    let steps = run(&[
        (0, Some(listed([1, 2]))),
        (10, Some(listed([3, 4]))),
        (20, Some(listed([3, 4]))),
        (41, Some(listed([3, 4]))),
    ]);
    assert_eq!(numbers(&steps[2].found), [1, 2, 3, 4]);
    assert_eq!(numbers(&steps[3].found), [3, 4]);
}

#[test]
fn what_comes_back_while_it_is_held_was_never_away() {
    let steps = run(&[
        (0, Some(listed([1, 2, 3]))),
        (10, Some(listed([1]))),
        (20, Some(listed([1, 2, 3]))),
        (60, None),
    ]);
    assert!(!steps[2].found.holding);
    assert_eq!(numbers(&steps[3].found), [1, 2, 3]);
}

#[test]
fn a_hold_does_not_end_while_lookups_fail() {
    let failed = || Some(Answer::Failed(LookupFailure::Timeout("x".into())));
    let steps = run(&[
        (0, Some(listed([1, 2, 3]))),
        (10, Some(listed([1]))),
        (20, failed()),
        (100, None),
        (101, failed()),
    ]);
    assert!(steps[1..].iter().all(|step| numbers(&step.found) == [1, 2, 3]));
    let last = merge(&steps[4].found, Some(&listed([1])), HOLD, at(102));
    assert_eq!(numbers(&last.found), [1], "a good answer confirms it");
}
