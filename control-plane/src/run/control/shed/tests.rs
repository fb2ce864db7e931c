use std::sync::Arc;

use chrono::TimeDelta;

use crate::decide::Signs;
use crate::envoy::{LaneCounts, LaneLog, LogSummary, ModelLoad, NodeLoad};
use crate::learn::Insight;
use crate::run::control::{Effect, Input};
use crate::telemetry::Sample;
use crate::view::ShedView;

use super::told::MILLION;
use super::*;

fn at(second: f64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).unwrap() + TimeDelta::milliseconds((1000.0 * second) as i64)
}

const BACKENDS: [&str; 2] = ["10.0.0.1:8000", "10.0.0.2:8000"];

/// A model of two backends that serve 10 requests/s each, and an Envoy that refuses what it is told.
struct World {
    core: Core,
    second: f64,
    waiting: f64,
    is_logged: bool,
    rows: Vec<DecisionRow>,
    notes: Vec<String>,
}

impl World {
    fn new(model: &str) -> Self {
        let config = crate::config::parse(&format!(
            "models: [{{ name: m, pools: [a], {model} }}]\n\
             pools: [{{ name: a, capacity_rps: 10, backends: {BACKENDS:?} }}]\n"
        ));
        let mut core = Core::new(Arc::new(config.unwrap()), at(0.0));
        core.reconcile(at(0.0));
        let nodes = ["envoy".to_owned()].into();
        core.take(Input::Connected { nodes, report_seconds: 2, zones: Vec::new() }).unwrap();
        Self { core, second: 0.0, waiting: 0.0, is_logged: true, rows: Vec::new(), notes: Vec::new() }
    }

    /// What Envoys are told: batch, and what goes by predictions.
    fn told(&self) -> (f64, f64) {
        let intents = self.core.intents(true, at(self.second));
        // Before the first decision there is nothing to tell.
        let Some(lanes) = intents.first().map(|intent| &intent.lanes) else { return (0.0, 0.0) };
        (f64::from(lanes.batch_refused) / MILLION, f64::from(lanes.predictive_refused) / MILLION)
    }

    /// Seconds in which so many requests of each lane come.
    fn run(&mut self, seconds: usize, batch: f64, interactive: f64) {
        for _ in 0..seconds {
            let (refused_batch, dropped) = self.told();
            let dropped = dropped * f64::from(self.core.relied_on("m", at(self.second))) / 100.0;
            self.second += 1.0;
            let now = at(self.second);
            let batch_in = batch * (1.0 - refused_batch);
            let others_in = interactive * (1.0 - dropped);
            let admitted = batch_in + others_in;
            self.waiting = (self.waiting + admitted - 20.0).max(0.0);
            let busy = (admitted / 20.0).min(1.0);
            for backend in BACKENDS {
                let sample = Sample {
                    at: now,
                    backend: backend.into(),
                    interval_seconds: 1.0,
                    arrived: admitted / 2.0,
                    completed: 10.0 * busy,
                    running: Some(60.0 * busy),
                    queue_depth: Some(self.waiting / 2.0),
                    ..Sample::default()
                };
                self.take(Input::Sample { at: now, sample: Box::new(sample) });
            }
            if self.second % 2.0 == 0.0 {
                let dropped = 2.0 * interactive * dropped;
                let load = ModelLoad { requests: 2.0 * admitted + dropped, dropped, interval_seconds: 2.0 };
                self.take(Input::Load(NodeLoad {
                    zone: None,
                    node_id: "envoy".to_owned(),
                    at: now,
                    models: [("m".to_owned(), load)].into(),
                    endpoints: Vec::new(),
                    groups: Vec::new(),
                }));
            }
            let counts =
                |admitted, offered: f64| LaneCounts { admitted, refused: offered - admitted, dropped: 0.0 };
            let log = LaneLog { batch: counts(batch_in, batch), interactive: counts(others_in, interactive) };
            let lanes = [("m".to_owned(), log)].into();
            if self.is_logged {
                self.take(Input::Log { at: now, summary: LogSummary { lanes, ..LogSummary::default() } });
            }
            self.take(Input::Tick { at: now });
        }
    }

    fn take(&mut self, input: Input) {
        self.core.take(input).unwrap();
        for effect in self.core.effects() {
            match effect {
                Effect::Decided(row) if row.kind == "shed" => self.rows.push(*row),
                Effect::Note(_, message) if message.contains("refused") => self.notes.push(message),
                _ => {}
            }
        }
    }

    fn model(&self) -> Model {
        self.core.config.models[0].clone()
    }

    fn demand(&self) -> Demand {
        self.core.fleet.demand("m", at(self.second))
    }

    fn shown(&self) -> ShedView {
        self.core.shed_view(&self.model())
    }
}

#[test]
fn an_overload_is_shed_and_ends_and_each_decision_can_be_made_again() {
    let mut world = World::new("");
    world.run(40, 4.0, 8.0);
    assert_eq!((world.told(), world.rows.len()), ((0.0, 0.0), 0));
    world.run(90, 18.0, 10.0);
    // 17 of 28 are let in.
    let (batch, interactive) = world.told();
    assert!((batch - 11.0 / 18.0).abs() < 0.03 && interactive == 0.0, "{batch}");
    assert!(world.waiting < 1.0, "{}", world.waiting);
    let demand = world.core.fleet.demand("m", at(world.second));
    assert!((demand.requests_per_second - 28.0).abs() < 0.5, "what is refused is demand: {demand:?}");
    let [event] = world.notes.as_slice() else { panic!("{:?}", world.notes) };
    assert!(event.starts_with("requests for model m are refused: "), "{event}");
    let shown = world.shown();
    assert!(shown.batch_refused > 100.0 && shown.reason.is_some(), "{shown:?}");

    world.run(30, 4.0, 8.0);
    assert_eq!(world.told(), (0.0, 0.0));
    assert!(world.notes[1].contains("no requests for model m are refused any more"), "{:?}", world.notes);
    assert!(world.rows.len() > 5, "{}", world.rows.len());
    for row in &world.rows {
        let again = explain_shed(row).unwrap();
        for change in serde_json::from_value::<Vec<Change>>(row.changes.clone()).unwrap() {
            let part = if change.target == "batch" { again.batch } else { again.interactive };
            assert_eq!(change.to, Some(part), "{row:?}");
            assert_eq!(change.reason, again.reason);
        }
    }
}

#[test]
fn interactive_requests_are_refused_where_that_is_allowed_and_batch_is_not_enough() {
    for (allowed, expected) in [("0", 0.0), ("1", 13.0 / 30.0)] {
        let mut world = World::new(&format!("shedding: {{ interactive: {allowed} }}"));
        world.run(40, 2.0, 6.0);
        world.run(150, 4.0, 30.0);
        let (batch, interactive) = world.told();
        assert_eq!(batch, 1.0);
        assert!((interactive - expected).abs() < 0.03, "{interactive}");
    }
}

#[test]
fn what_is_only_advised_is_decided_and_told_to_nobody() {
    for (rung, share) in [("shadow", 0.0), ("advise", 0.0), ("canary, canary: { share: 0.5 }", 0.5)] {
        let mut world = World::new(&format!("rung: {rung}"));
        world.run(40, 4.0, 8.0);
        world.run(20, 18.0, 10.0);
        let shown = world.shown();
        assert!(shown.advised_batch_ratio > 0.3, "{shown:?}");
        assert!((world.told().0 - share * shown.advised_batch_ratio).abs() < 1e-6);
        assert!(world.rows.iter().all(|row| row.rung().is_some()));
        let words = if share > 0.0 { "are refused" } else { "would be refused" };
        assert!(world.notes[0].contains(words), "{:?}", world.notes);
    }
}

#[test]
fn what_is_refused_stays_as_it_is_when_access_logs_are_lost() {
    let mut world = World::new("");
    world.run(40, 4.0, 8.0);
    world.run(90, 18.0, 10.0);
    let before = world.told().0;
    world.is_logged = false;
    for _ in 0..40 {
        world.run(1, 18.0, 10.0);
        let (batch, _) = world.told();
        assert!((batch - before).abs() < 0.1 && world.waiting < 5.0, "{batch} {}", world.waiting);
    }
    assert!(world.core.shed_input(&world.model(), &world.demand(), at(world.second)).refused.is_none());
}

#[test]
fn a_sick_backend_is_no_capacity() {
    let mut world = World::new("");
    world.run(40, 1.0, 8.0);
    let seen = |world: &World| world.core.shed_input(&world.model(), &world.demand(), at(world.second));
    let all = seen(&world);
    assert_eq!((all.backends, all.capacity_rps), (2, Some(20.0)));
    let silent = Signs { silent: 5.0, ..Signs::default() };
    world.core.learned(Insight::Signs(BACKENDS[0].parse().unwrap(), silent), at(world.second));
    world.run(15, 1.0, 8.0);
    let well = seen(&world);
    assert_eq!((well.backends, well.capacity_rps), (1, Some(10.0)));
    let (places, half) = (well.places.unwrap(), all.places.unwrap() / 2.0);
    assert!((places - half).abs() < 1e-6 * half, "{places} {half}");
    // Ten a second are all that the other one takes.
    world.run(40, 4.0, 8.0);
    assert!(world.told().0 > 0.5, "{:?}", world.told());
}

#[test]
fn stale_telemetry_ends_it_and_so_does_who_leaves() {
    let mut world = World::new("");
    world.run(40, 4.0, 8.0);
    world.run(60, 18.0, 10.0);
    assert!(world.told().0 > 0.3);
    assert_eq!(world.core.intents(false, at(world.second))[0].lanes.batch_refused, 0, "Clairvoy stops");
    for _ in 0..20 {
        world.second += 1.0;
        world.take(Input::Tick { at: at(world.second) });
    }
    assert_eq!(world.told(), (0.0, 0.0));
}

#[test]
fn without_access_logs_nothing_is_refused() {
    let mut world = World::new("");
    for second in (1..80).map(f64::from) {
        let now = at(second);
        for backend in BACKENDS {
            let sample = Sample {
                at: now,
                backend: backend.into(),
                interval_seconds: 1.0,
                arrived: 20.0,
                running: Some(60.0),
                queue_depth: Some(100.0),
                ..Sample::default()
            };
            world.take(Input::Sample { at: now, sample: Box::new(sample) });
        }
        world.take(Input::Tick { at: now });
    }
    assert_eq!(world.rows.len(), 0);
}
