use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Config;
use crate::decide::{Outcomes, PartOutcomes};
use crate::envoy::LogSummary;
use crate::run::control::{Input, Order};
use crate::run::database::Memory;
use crate::telemetry::Sample;
use crate::view::CanaryView;

use super::*;

const BACKENDS: [&str; 2] = ["10.0.0.1:8000", "10.0.0.2:8000"];

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap()
}

fn config(model: &str) -> Arc<Config> {
    let text = format!(
        "models: [{{ name: m, pools: [a], {model} }}]\npools: [{{ name: a, capacity_rps: 10, backends: {BACKENDS:?} }}]\n"
    );
    Arc::new(crate::config::parse(&text).unwrap())
}

const HALF: &str = "rung: canary, canary: { share: 0.5 }";

struct World {
    core: Core,
    second: i64,
    rows: Vec<DecisionRow>,
    notes: Vec<String>,
    saved: Option<serde_json::Value>,
}

impl World {
    fn new(model: &str) -> Self {
        let mut core = Core::new(config(model), at(0));
        core.reconcile(at(0));
        let nodes = ["envoy".to_owned()].into();
        core.take(Input::Connected { nodes, report_seconds: 2, zones: Vec::new() }).unwrap();
        Self::of(core, 0)
    }

    fn of(core: Core, second: i64) -> Self {
        Self { core, second, rows: Vec::new(), notes: Vec::new(), saved: None }
    }

    /// One whose steered part did worse after half a minute, and has stepped back.
    fn stepped_back() -> Self {
        let mut world = Self::new(HALF);
        world.run(30, 0);
        world.run(60, 5);
        world
    }

    /// One that begins with what the last run left in the database.
    fn restarted(model: &str, saved: &serde_json::Value) -> Self {
        let mut world = Self::new(model);
        world.remember(saved);
        world
    }

    /// From a checkpoint, as a replay goes on.
    fn replayed(&self) -> Self {
        let checkpoint = serde_json::to_string(&self.core.checkpoint()).unwrap();
        Self::of(Core::resume(serde_json::from_str(&checkpoint).unwrap()), self.second)
    }

    /// Seconds in which ten requests of each part end, of which so many fail in the steered part.
    fn run(&mut self, seconds: i64, failures: u64) {
        for _ in 0..seconds {
            self.second += 1;
            let now = at(self.second);
            for backend in BACKENDS {
                let sample = Sample {
                    at: now,
                    backend: backend.into(),
                    interval_seconds: 1.0,
                    running: Some(5.0),
                    queue_depth: Some(0.0),
                    ..Sample::default()
                };
                self.take(Input::Sample { at: now, sample: Box::new(sample) });
            }
            let of = |failures| Outcomes { requests: 10, failures, ..Outcomes::default() };
            let parts = PartOutcomes { steered: of(failures), unsteered: of(0) };
            let parts = [("m".to_owned(), parts)].into();
            self.take(Input::Log { at: now, summary: LogSummary { parts, ..LogSummary::default() } });
            self.take(Input::Tick { at: now });
        }
    }

    fn take(&mut self, input: Input) {
        // As it is replayed.
        self.core.take(input.as_recorded()).unwrap();
        self.look();
    }

    fn look(&mut self) {
        for effect in self.core.effects() {
            match effect {
                Effect::Decided(row) if row.kind == "canary" => self.rows.push(*row),
                Effect::Note(_, message) if message.contains("canary") => self.notes.push(message),
                Effect::Journal(Entry::ModelState { kind: CANARY, state, .. }) => self.saved = Some(state),
                _ => {}
            }
        }
    }

    /// The database tells of a canary what the last run left, and of nothing else.
    fn remember(&mut self, saved: &serde_json::Value) {
        let canaries = vec![("m".to_owned(), saved.clone())];
        self.core.remember(Memory { canaries, ..Memory::default() }, at(self.second));
    }

    fn resumption(&self, model: &str) -> Input {
        Input::Order { at: at(self.second), order: Order::ResumeCanary { model: model.to_owned() } }
    }

    fn resume(&mut self) {
        self.take(self.resumption("m"));
    }

    fn percent(&self) -> u32 {
        self.core.intents(true, at(self.second))[0].predictive_percent
    }

    fn view(&self) -> CanaryView {
        self.core.canary_view(&self.core.config.models[0]).unwrap()
    }
}

#[test]
fn a_canary_that_does_no_worse_goes_on() {
    let mut world = World::new(HALF);
    world.run(300, 0);
    assert_eq!((world.percent(), world.rows.len()), (50, 0));
    let view = world.view();
    assert!(view.blocks > 50 && view.stepped_back.is_none(), "{view:?}");
    assert_eq!(view.reason.as_deref(), Some("the steered requests do no worse than the others"));
    let since = world.core.compared_since()["m"];
    let (_, steered_since) = world.core.canaries["m"].steered.unwrap();
    assert!(since > steered_since && (since - steered_since).num_seconds() < 10, "{since} {steered_since}");
}

#[test]
fn one_that_does_worse_steps_back_within_a_minute_and_its_decision_can_be_made_again() {
    let mut world = World::new(HALF);
    world.run(120, 0);
    let before = world.second;
    while world.rows.is_empty() {
        world.run(1, 2);
        assert!(world.second - before <= 60, "{:?}", world.view());
    }
    assert_eq!(world.percent(), 0, "at once");
    assert!(world.core.compared_since().is_empty());
    let groups = &world.core.intents(true, at(world.second))[0];
    assert_eq!(groups.groups, groups.static_groups, "nothing predicted leaves the house");
    let note = &world.notes[0];
    let words = ["steps back to `advise`:", "of the steered requests failed, and 0.0 % of the others"];
    assert!(words.iter().all(|words| note.contains(words)), "{note}");
    let row = world.rows[0].clone();
    let again = explain_canary(&row).unwrap().unwrap();
    assert_eq!(again.step_back, Some(crate::decide::Measure::Failures));
    assert!(row.summary.contains(&again.reason));
    let back = world.view().stepped_back.unwrap();
    assert_eq!(back.decision, row.id.to_string());

    world.run(600, 0);
    assert_eq!((world.percent(), world.rows.len()), (0, 1), "it stays so");
}

#[test]
fn a_replay_from_a_checkpoint_comes_to_the_same_decision() {
    let mut live = World::new(HALF);
    live.run(60, 0);
    live.run(3, 1);
    let mut replayed = live.replayed();
    live.run(40, 3);
    replayed.run(40, 3);
    assert_eq!((live.rows.len(), &live.rows), (1, &replayed.rows));
}

#[test]
fn it_stays_so_over_a_restart_until_it_is_resumed_or_configured_otherwise() {
    let world = World::stepped_back();
    assert_eq!(world.replayed().core.canaries, world.core.canaries);

    let saved = world.saved.unwrap();
    let mut world = World::restarted(HALF, &saved);
    world.run(60, 0);
    assert_eq!(world.percent(), 0);
    let none = world.core.take(world.resumption("n"));
    assert!(matches!(none, Err(Refusal::NoSuchModel(_))));
    world.resume();
    assert_eq!(world.rows[0].summary, "predictions steer the canary again: an operator resumed it");
    assert_eq!(explain_canary(&world.rows[0]), Ok(None));
    world.run(20, 0);
    assert_eq!(world.percent(), 50);
    let again = world.core.take(world.resumption("m"));
    assert!(matches!(again, Err(Refusal::NotSteppedBack(_))));
    // That it was resumed is saved, too.
    let mut next = World::restarted(HALF, world.saved.as_ref().unwrap());
    next.run(30, 0);
    assert_eq!(next.percent(), 50);

    // An operator who chooses another share wants to try that.
    let mut other = World::restarted("rung: canary, canary: { share: 0.2 }", &saved);
    other.run(30, 0);
    assert_eq!(other.percent(), 20);
    let mut same = World::restarted(HALF, &saved);
    let changed = config(&format!("{HALF}, timeouts: {{ idle: 60s }}"));
    same.take(Input::Config { at: at(1), config: changed });
    same.run(30, 0);
    assert_eq!(same.percent(), 0, "another setting is no wish to try it again");
    same.take(Input::Config { at: at(same.second), config: config("rung: enforce") });
    same.run(30, 0);
    assert_eq!(same.percent(), 100);
}

#[test]
fn one_that_is_resumed_before_the_database_tells_of_it_goes_on() {
    let saved = World::stepped_back().saved.unwrap();

    // It steps back anew while the database is away, and is resumed.
    let mut late = World::stepped_back();
    late.resume();
    late.remember(&saved);
    late.run(30, 0);
    assert_eq!(late.percent(), 50);

    // Nobody knows yet that it had stepped back.
    let mut unknown = World::new(HALF);
    unknown.resume();
    unknown.run(30, 0);
    unknown.remember(&saved);
    unknown.run(30, 0);
    assert_eq!(unknown.percent(), 50);
    assert!(unknown.rows.is_empty());
    // It is saved, and one that does worse from now on steps back.
    assert!(unknown.saved.as_ref().unwrap()["stepped_back"].is_null());
    unknown.run(90, 5);
    assert_eq!(unknown.percent(), 0);

    let mut unasked = World::new(HALF);
    unasked.run(30, 0);
    unasked.remember(&saved);
    unasked.run(30, 0);
    assert_eq!(unasked.percent(), 0);
}

#[test]
fn without_requests_in_one_part_nothing_is_concluded() {
    let mut world = World::new("rung: canary, canary: { by: proxies, share: 0.5 }");
    world.run(60, 0);
    assert_eq!(world.percent(), 100, "of the Envoys that are chosen");
    assert_eq!(world.core.intents(true, at(world.second))[0].steered_proxies, Some(50));
    let share = world.core.relied_part(&world.core.config.models[0]);
    assert!(share == 0.0 || share == 1.0, "there is one Envoy: {share}");
    let lone = world.core.lone_part(&world.core.config.models[0]);
    assert_eq!(lone.as_ref().map(|(is_unsteered, _)| *is_unsteered), Some(share == 0.0));
    assert_eq!(world.view().reason, lone.map(|(_, reason)| reason));
    let nodes: BTreeSet<String> = (0..20).map(|node| format!("envoy-{node}")).collect();
    world.take(Input::Connected { nodes, report_seconds: 2, zones: Vec::new() });
    assert_eq!(world.core.lone_part(&world.core.config.models[0]), None, "there are both");
}
