//! Whatever happens on the way, a client ends with the newest snapshot, and never has a route to nowhere.
//!
//! A few seconds by default, minutes with `CLAIRVOY_LONG=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fake_client::{FakeClient, decode};
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
}

fn steps(reconnects: bool) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => world().prop_map(Step::Publish),
        6 => Just(Step::ServerReads),
        6 => Just(Step::ServerSends),
        6 => Just(Step::ClientReads),
        u32::from(reconnects) => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 1..80)
}

struct Run {
    client: FakeClient,
    stream: Stream,
    newest: Option<Published>,
    now: Instant,
    streams: u32,
}

impl Run {
    fn new() -> Self {
        let now = Instant::now();
        let mut client = FakeClient::default();
        client.connect();
        Self {
            client,
            stream: Stream::new(Variant::Delta, None, "0-", limits(), Arc::default(), now),
            newest: None,
            now,
            streams: 0,
        }
    }

    fn step(&mut self, step: Step) {
        self.now += Duration::from_millis(1);
        match step {
            Step::Publish(world) => {
                self.newest = Some(Published::first(world.snapshot(), self.now));
            }
            Step::ServerReads => {
                if let Some(request) = self.client.to_server.pop_front() {
                    self.stream.delta_request(&request, self.now).unwrap();
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
                self.stream = Stream::new(
                    Variant::Delta,
                    None,
                    &format!("{}-", self.streams),
                    limits(),
                    Arc::default(),
                    self.now,
                );
                self.client.connect();
            }
        }
    }

    /// Lets everything that is under way arrive.
    fn settle(&mut self) {
        for _ in 0..200 {
            for step in [Step::ServerReads, Step::ServerSends, Step::ClientReads] {
                self.step(step);
            }
        }
        assert!(self.client.to_server.is_empty() && self.client.to_client.is_empty(), "messages without end");
    }

    /// The client has everything that it wants of the newest snapshot, and nothing else.
    fn assert_complete(&self, snapshot: &Snapshot) {
        for t in ResourceType::ALL {
            let wanted: BTreeSet<String> = match t {
                ResourceType::RouteConfiguration => {
                    let listeners = snapshot.table(ResourceType::Listener).iter();
                    listeners.flat_map(|l| l.route_configurations.iter().map(|r| r.to_string())).collect()
                }
                _ => snapshot.names(t).map(str::to_owned).collect(),
            };
            let versions: BTreeMap<String, String> = wanted
                .into_iter()
                .map(|name| (name.clone(), snapshot.version(t, &name).unwrap().to_string()))
                .collect();
            assert_eq!(self.client.held(t), versions, "{t}");
        }
        assert!(self.stream.in_sync(snapshot));
    }
}

proptest! {
    #![proptest_config(cases(256, 5_000))]

    #[test]
    fn every_client_ends_with_the_newest_snapshot(steps in steps(false), last in world()) {
        let mut run = Run::new();
        steps.into_iter().chain([Step::Publish(last.clone())]).for_each(|step| run.step(step));
        run.settle();
        run.assert_complete(&last.snapshot());
    }

    #[test]
    fn a_client_that_comes_back_ends_with_the_newest_snapshot(steps in steps(true), last in world()) {
        let mut run = Run::new();
        steps.into_iter().chain([Step::Publish(last.clone())]).for_each(|step| run.step(step));
        run.settle();
        // What went while it was away is held back for a client that may ask for no listeners or routes.
        run.now += limits().removal_hold;
        run.settle();
        run.assert_complete(&last.snapshot());
    }

    #[test]
    fn refusals_do_not_loop_and_are_healed_by_the_next_state(
        steps in steps(false),
        refused in prop::collection::vec(world(), 1..4),
        last in world(),
    ) {
        let mut run = Run::new();
        let good = last.snapshot();
        for world in &refused {
            let snapshot = world.snapshot();
            for t in ResourceType::ALL {
                run.client.poison.extend(snapshot.table(t).iter().map(|r| r.version.to_string()));
            }
        }
        for t in ResourceType::ALL {
            for resource in good.table(t).iter() {
                run.client.poison.remove(&resource.version.to_string());
            }
        }
        steps.into_iter().for_each(|step| run.step(step));
        for world in refused {
            run.step(Step::Publish(world));
            run.settle();
        }
        run.step(Step::Publish(last));
        run.settle();
        run.now += limits().removal_hold;
        run.settle();
        run.assert_complete(&good);
    }
}
