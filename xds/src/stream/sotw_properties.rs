//! The state-of-the-world variant: whatever happens on the way, a client ends with the newest snapshot, and never loses
//! what it uses.
//!
//! A few seconds by default, minutes with `CLAIRVOY_LONG=1`.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fake_client::decode;
use super::fake_sotw::{FakeSotw, contents};
use super::tests::limits;
use super::worlds::{World, cases, world};
use super::{Published, Stream, Variant};
use crate::resource_type::ResourceType;
use crate::snapshot::Snapshot;

#[derive(Clone, Debug)]
enum Step {
    Publish(World),
    ServerReads,
    ServerSends,
    ClientReads,
    Reconnect,
    /// Nothing happens until every limit of time has run out.
    Stall,
}

/// What may go wrong on the way.
#[derive(Clone, Copy)]
struct Troubles {
    reconnects: bool,
    stalls: bool,
}

const NO_TROUBLES: Troubles = Troubles { reconnects: false, stalls: false };
const ALL_TROUBLES: Troubles = Troubles { reconnects: true, stalls: true };

fn steps(troubles: Troubles) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => world().prop_map(Step::Publish),
        6 => Just(Step::ServerReads),
        6 => Just(Step::ServerSends),
        6 => Just(Step::ClientReads),
        u32::from(troubles.reconnects) => Just(Step::Reconnect),
        u32::from(troubles.stalls) => Just(Step::Stall),
    ];
    prop::collection::vec(step, 1..80)
}

struct Run {
    client: FakeSotw,
    stream: Stream,
    newest: Option<Published>,
    now: Instant,
    streams: u32,
}

impl Run {
    fn new(mut client: FakeSotw, strict: bool) -> Self {
        let now = Instant::now();
        client.strict = strict;
        client.connect();
        Self { client, stream: new_stream(0, now), newest: None, now, streams: 0 }
    }

    fn step(&mut self, step: Step) {
        self.now += Duration::from_millis(1);
        match step {
            Step::Publish(world) => {
                let snapshot = world.snapshot();
                self.client.note_published(&snapshot);
                self.newest = Some(Published::first(snapshot, self.now));
            }
            Step::ServerReads => {
                if let Some(request) = self.client.to_server.pop_front() {
                    self.stream.sotw_request(&request, self.now).unwrap();
                }
            }
            Step::ServerSends => {
                if let Some(response) = self.stream.next_response(self.newest.as_ref(), self.now) {
                    self.client.to_client.push_back(decode(&response));
                }
            }
            Step::ClientReads => self.client.receive(),
            Step::Reconnect => {
                self.streams += 1;
                self.stream = new_stream(self.streams, self.now);
                self.client.connect();
            }
            Step::Stall => self.now += limits().ack_timeout + limits().removal_hold,
        }
    }

    /// Lets everything that is under way arrive, and every removal that is held back.
    fn settle(&mut self) {
        for _ in 0..2 {
            for _ in 0..200 {
                for step in [Step::ServerReads, Step::ServerSends, Step::ClientReads] {
                    self.step(step);
                }
            }
            assert!(
                self.client.to_server.is_empty() && self.client.to_client.is_empty(),
                "messages without end"
            );
            if !self.client.strict {
                self.now += limits().removal_hold;
            }
        }
    }

    fn assert_complete(&self, snapshot: &Snapshot) {
        let complete = self.client.complete(snapshot);
        for t in ResourceType::ALL {
            assert_eq!(self.client.held[t], complete[t], "{t}");
        }
        assert!(self.stream.in_sync(snapshot));
    }

    fn through(&mut self, steps: Vec<Step>, last: &World) {
        steps.into_iter().chain([Step::Publish(last.clone())]).for_each(|step| self.step(step));
        self.settle();
        self.assert_complete(&last.snapshot());
    }
}

fn new_stream(number: u32, now: Instant) -> Stream {
    Stream::new(Variant::Sotw, None, &format!("{number}-"), limits(), std::sync::Arc::default(), now)
}

fn proxyless() -> FakeSotw {
    FakeSotw::by_name(&["listener-a", "listener-b"])
}

/// Refusals on the way: everything of `refused` that is not in `last`.
fn through_refusals(mut run: Run, steps: Vec<Step>, refused: Vec<World>, last: &World) {
    let good = last.snapshot();
    for world in &refused {
        let snapshot = world.snapshot();
        for t in ResourceType::ALL {
            run.client.poison.extend(contents(&snapshot, t).into_values());
        }
    }
    for t in ResourceType::ALL {
        for content in contents(&good, t).values() {
            run.client.poison.remove(content);
        }
    }
    steps.into_iter().for_each(|step| run.step(step));
    for world in refused {
        run.step(Step::Publish(world));
        run.settle();
    }
    run.through(Vec::new(), last);
}

proptest! {
    #![proptest_config(cases(256, 5_000))]

    #[test]
    fn sotw_a_proxy_ends_with_the_newest_snapshot(steps in steps(NO_TROUBLES), last in world()) {
        Run::new(FakeSotw::proxy(), true).through(steps, &last);
    }

    #[test]
    fn sotw_a_proxy_that_stalls_and_comes_back_ends_with_it(steps in steps(ALL_TROUBLES), last in world()) {
        Run::new(FakeSotw::proxy(), false).through(steps, &last);
    }

    #[test]
    fn sotw_refusals_do_not_loop_and_are_healed_by_the_next_state(
        steps in steps(NO_TROUBLES),
        refused in prop::collection::vec(world(), 1..4),
        last in world(),
    ) {
        through_refusals(Run::new(FakeSotw::proxy(), false), steps, refused, &last);
    }

    #[test]
    fn sotw_a_client_by_name_ends_with_the_newest_snapshot(steps in steps(NO_TROUBLES), last in world()) {
        Run::new(proxyless(), true).through(steps, &last);
    }

    #[test]
    fn sotw_a_client_by_name_that_stalls_and_comes_back_ends_with_it(
        steps in steps(ALL_TROUBLES),
        last in world(),
    ) {
        Run::new(proxyless(), false).through(steps, &last);
    }

    #[test]
    fn sotw_refusals_of_a_client_by_name_are_healed_by_the_next_state(
        steps in steps(NO_TROUBLES),
        refused in prop::collection::vec(world(), 1..4),
        last in world(),
    ) {
        through_refusals(Run::new(proxyless(), false), steps, refused, &last);
    }
}
