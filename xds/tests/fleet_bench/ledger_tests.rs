//! The account of the streams.

use crate::ledger::Ledger;
use crate::process::monotonic_ns;
use crate::protocol::Watched;

fn enter(ledger: &Ledger, stream: usize, assignments: &[(usize, u32)]) {
    ledger.enter(stream, 10, assignments.iter().copied().map(Ok)).unwrap();
}

#[test]
fn a_stream_is_there_when_every_cluster_is() {
    let ledger = Ledger::new(1, 2);
    enter(&ledger, 0, &[(0, 1)]);
    assert!(!ledger.have_reached(1, &mut 0));
    enter(&ledger, 0, &[(1, 1)]);
    assert!(ledger.have_reached(1, &mut 0));
    assert_eq!(ledger.check(&[1, 1]).behind, 0);
    assert_eq!(ledger.check(&[1, 2]).behind, 1);
}

#[test]
fn delays_count_to_the_state_that_satisfies_a_publish() {
    let ledger = Ledger::new(2, 1);
    ledger.watch(Watched::One(0));
    for stream in 0..2 {
        enter(&ledger, stream, &[(0, 1)]);
    }
    ledger.watch(Watched::All);
    let at = monotonic_ns();
    enter(&ledger, 0, &[(0, 2)]);
    enter(&ledger, 0, &[(0, 3)]);
    enter(&ledger, 1, &[(0, 3)]);
    ledger.collect(&[(2, at), (3, at)]);
    let summary = ledger.summary().unwrap();
    assert_eq!((summary.samples, summary.overtaken), (4, 1));
    assert!(summary.p50_ns > 0 && summary.p50_ns <= summary.max_ns);
    assert!(ledger.summary().is_none());
    let received = ledger.received();
    assert_eq!((received.responses, received.updates, received.bytes), (5, 5, 50));
}

#[test]
fn stalled_streams_are_not_waited_for() {
    let ledger = Ledger::new(2, 1);
    enter(&ledger, 0, &[(0, 1)]);
    ledger.set_stalled(|stream| stream == 1);
    assert!(ledger.have_reached(1, &mut 0));
    assert_eq!(ledger.missing(1).0, 0);
    ledger.set_stalled(|_| false);
    assert_eq!(ledger.missing(1).0, 1);
}

#[test]
fn going_back_and_strangers_are_faults() {
    let ledger = Ledger::new(1, 1);
    enter(&ledger, 0, &[(0, 3)]);
    enter(&ledger, 0, &[(0, 3)]);
    enter(&ledger, 0, &[(0, 2)]);
    let checked = ledger.check(&[3]);
    assert_eq!((checked.reordered, checked.behind), (1, 1));
    assert_eq!(ledger.received().repeated, 1);
    assert!(ledger.enter(0, 1, [Ok((1, 1))].into_iter()).is_err());
    ledger.fail("gone".into());
    assert_eq!(ledger.check(&[3]).reason.as_deref(), Some("gone"));
}
