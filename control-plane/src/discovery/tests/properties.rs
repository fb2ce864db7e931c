use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Answer, Found, Lease, LookupFailure, merge};
use super::{at, listed};

fn answer() -> impl Strategy<Value = Option<Answer>> {
    prop_oneof![
        6 => prop::collection::btree_set(0_u8..12, 0..12).prop_map(|set| Some(listed(set))),
        2 => Just(Some(Answer::Failed(LookupFailure::Timeout("x".into())))),
        2 => Just(None),
    ]
}

proptest! {
    #[test]
    fn it_never_empties_and_drains_only_what_the_newest_good_answer_lacks(
        steps in prop::collection::vec((0_i64..40, answer()), 1..40),
        hold_seconds in 0_u64..60,
    ) {
        let hold = Duration::from_secs(hold_seconds);
        let mut found = Found::default();
        let mut newest = BTreeSet::new();
        let mut now = 0;
        for (wait, answer) in steps {
            now += wait;
            let merged = merge(&found, answer.as_ref(), hold, at(now));
            if let Some(Answer::Backends(listed)) = answer.as_ref().filter(|answer| **answer != listed([])) {
                newest = listed.clone();
            }
            let wanted: BTreeSet<_> = merged.found.backends.keys().copied().collect();
            prop_assert!(found.backends.is_empty() || !wanted.is_empty(), "emptied");
            prop_assert!(wanted.is_superset(&newest), "what is listed is wanted");
            prop_assert!(merged.went.is_disjoint(&newest), "what is listed does not go");
            let before: BTreeSet<_> = found.backends.keys().copied().collect();
            prop_assert_eq!(&(&before | &merged.came) - &merged.went, wanted, "nothing else comes or goes");
            if merged.found.stale.is_some() {
                prop_assert!(merged.went.is_empty() && merged.came.is_empty(), "no news, no change");
            }
            let listed_in_time = |since: &Option<_>| since.is_none_or(|since| at(now) - since < chrono::TimeDelta::from_std(hold).unwrap());
            let all_in_time = merged.found.backends.values().all(listed_in_time);
            prop_assert!(all_in_time || merged.found.stale.is_some(), "nothing is held for longer");
            // With more than half gone at once nothing goes in the same moment.
            if let Some(Answer::Backends(listed)) = &answer
                && !listed.is_empty() && hold_seconds > 0 && !found.holding
                && (&before - listed).len() * 2 > before.len()
            {
                prop_assert!(merged.went.is_empty(), "held");
            }
            found = merged.found;
        }
    }

    #[test]
    fn a_lease_ends_its_length_after_the_last_renewal(length in 1_i64..100_000, late in 0_i64..200_000) {
        let lease = Lease::new(chrono::TimeDelta::seconds(length), at(0));
        prop_assert_eq!(lease.is_over(at(late)), late >= length);
        prop_assert_eq!(lease.remaining_seconds(at(late)), (length - late).max(0) as f64);
        prop_assert_eq!(Lease::new(lease.length, at(late)).ends_at, at(late + length));
    }
}
