//! The resources of the fleet.

use crate::resources::{assignment, name, number};

#[test]
fn names_and_numbers_agree() {
    assert_eq!(number(name(12_345).as_bytes()), Some(12_345));
    assert_eq!(number(b"cluster-"), None);
    assert_eq!(number(b"other-0001"), None);
}

#[test]
fn a_generation_changes_every_weight() {
    let weights = |generation| {
        let assignment = assignment(0, 20, generation);
        let endpoints = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
        endpoints.filter_map(|endpoint| endpoint.load_balancing_weight).collect::<Vec<_>>()
    };
    let (before, after) = (weights(1), weights(2));
    assert_eq!(before.len(), 20);
    assert!(before.iter().zip(&after).all(|(before, after)| before != after));
}
