use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;
use crate::signal::event::tests::plan;

fn schedule() -> Schedule {
    Schedule { delays: [0, 1, 5].map(Duration::from_secs).to_vec(), jitter: 0.0, seed: 1 }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn event(pool: &str, seconds: i64) -> Arc<ReplicaPlanEvent> {
    Arc::new(plan(pool, at(seconds), TimeDelta::seconds(60)))
}

fn sent(queue: &mut EndpointQueue, seconds: i64) -> Arc<ReplicaPlanEvent> {
    let (ended, next) = queue.next(at(seconds));
    assert_eq!(ended, []);
    let Next::Send(waiting) = next else { panic!("{next:?} instead of an event at {seconds} s") };
    waiting.event
}

const AGAIN: Verdict = Verdict::TryAgain(Duration::ZERO);

#[test]
fn attempts_follow_the_schedule_until_the_last_one() {
    let mut queue = EndpointQueue::new(10);
    assert_eq!(queue.push(event("a", 0), &schedule(), at(0)), None);
    sent(&mut queue, 0);
    assert_eq!(queue.finish(AGAIN, &schedule(), at(0))[0].outcome, DeliveryOutcome::Retrying(at(1)));
    assert_eq!(queue.next(at(0)).1, Next::Sleep(at(1)));
    sent(&mut queue, 1);
    let asked = Verdict::TryAgain(Duration::from_secs(20));
    assert_eq!(queue.finish(asked, &schedule(), at(1))[0].outcome, DeliveryOutcome::Retrying(at(21)));
    sent(&mut queue, 21);
    let last = queue.finish(AGAIN, &schedule(), at(21));
    assert_eq!((last[0].outcome, last[0].attempts), (DeliveryOutcome::Failed, 3));
    assert_eq!(queue.next(at(22)).1, Next::Idle);
}

#[test]
fn a_newer_plan_of_the_pool_takes_the_place_of_an_older_one() {
    let mut queue = EndpointQueue::new(10);
    let (old, new) = (event("a", 0), event("a", 1));
    queue.push(Arc::clone(&old), &schedule(), at(0));
    let lost = queue.push(Arc::clone(&new), &schedule(), at(1)).unwrap();
    assert_eq!((lost.event, lost.outcome), (Arc::clone(&old), DeliveryOutcome::Superseded));
    let lost = queue.push(Arc::clone(&old), &schedule(), at(1)).unwrap();
    assert_eq!((lost.event, lost.outcome), (old, DeliveryOutcome::Superseded));
    assert_eq!(queue.push(Arc::clone(&new), &schedule(), at(1)), None);
    assert_eq!((sent(&mut queue, 1), queue.len()), (new, 1));
}

#[test]
fn a_plan_under_way_is_not_tried_again_once_a_newer_one_waits() {
    let mut queue = EndpointQueue::new(10);
    let (old, new) = (event("a", 0), event("a", 1));
    queue.push(Arc::clone(&old), &schedule(), at(0));
    sent(&mut queue, 0);
    assert_eq!(queue.push(Arc::clone(&new), &schedule(), at(1)), None);
    let lost = queue.finish(AGAIN, &schedule(), at(1));
    assert_eq!((&lost[0].event, lost[0].outcome), (&old, DeliveryOutcome::Superseded));
    assert_eq!(sent(&mut queue, 1), new);
    assert_eq!(queue.finish(Verdict::Delivered, &schedule(), at(1))[0].outcome, DeliveryOutcome::Delivered);
}

#[test]
fn nothing_is_sent_after_its_time() {
    let mut queue = EndpointQueue::new(10);
    let late = queue.push(event("a", 0), &schedule(), at(60)).unwrap();
    assert_eq!(late.outcome, DeliveryOutcome::Expired);
    queue.push(event("a", 0), &schedule(), at(0));
    let (ended, next) = queue.next(at(60));
    assert_eq!((ended[0].outcome, next), (DeliveryOutcome::Expired, Next::Idle));
    queue.push(event("a", 0), &schedule(), at(0));
    sent(&mut queue, 0);
    let asked = Verdict::TryAgain(Duration::from_secs(3600));
    assert_eq!(queue.finish(asked, &schedule(), at(0))[0].outcome, DeliveryOutcome::Expired);
}

#[test]
fn a_receiver_that_is_gone_gets_nothing_more() {
    let mut queue = EndpointQueue::new(10);
    queue.push(event("a", 0), &schedule(), at(0));
    queue.push(event("b", 0), &schedule(), at(0));
    sent(&mut queue, 0);
    let ended = queue.finish(Verdict::Gone, &schedule(), at(0));
    assert_eq!(ended.iter().map(|step| step.outcome).collect::<Vec<_>>(), [DeliveryOutcome::Disabled; 2]);
    let refused = queue.push(event("c", 0), &schedule(), at(0)).unwrap();
    assert_eq!((refused.outcome, queue.len()), (DeliveryOutcome::Disabled, 0));
}

#[test]
fn the_queue_is_bounded_and_an_attempt_given_up_is_made_again() {
    let mut queue = EndpointQueue::new(1);
    queue.push(event("a", 0), &schedule(), at(0));
    let lost = queue.push(event("b", 0), &schedule(), at(0)).unwrap();
    assert_eq!(lost.outcome, DeliveryOutcome::Dropped);
    let first = sent(&mut queue, 0);
    assert_eq!(sent(&mut queue, 0), first);
}

proptest! {
    #[test]
    fn every_event_ends_once_and_no_older_plan_follows_a_newer_one(
        actions in proptest::collection::vec((0_u8..4, 0_usize..3, 0_i64..20), 1..80)
    ) {
        let pools = ["a", "b", "c"];
        let mut queue = EndpointQueue::new(2);
        let mut now = 0;
        let mut pushed = 0;
        let mut ended: Vec<Step> = Vec::new();
        let mut newest_sent = BTreeMap::new();
        let mut sending = false;
        for (action, pool, wait) in actions {
            match action {
                0 | 1 => {
                    now += 1;
                    pushed += 1;
                    ended.extend(queue.push(event(pools[pool], now), &schedule(), at(now)));
                }
                2 if !sending => {
                    let (steps, next) = queue.next(at(now));
                    ended.extend(steps);
                    if let Next::Send(waiting) = next {
                        sending = true;
                        prop_assert!(waiting.event.expires_at > at(now));
                        let before = newest_sent.insert(waiting.event.pool.clone(), waiting.event.at);
                        prop_assert!(before.is_none_or(|before| before <= waiting.event.at));
                    }
                }
                _ if sending => {
                    sending = false;
                    let verdict = if wait % 2 == 0 { AGAIN } else { Verdict::Delivered };
                    ended.extend(queue.finish(verdict, &schedule(), at(now)));
                }
                _ => now += wait,
            }
        }
        let finals = ended.iter().filter(|step| step.outcome.is_final()).count();
        prop_assert_eq!(finals + queue.len(), pushed);
    }
}
